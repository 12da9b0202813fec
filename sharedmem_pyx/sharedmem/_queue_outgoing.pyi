from typing import final

@final
class Outgoing: ...
