"""How shared arrays travel by what other libraries send and save: functions of theirs that are replaced."""
