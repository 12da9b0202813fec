"""How shared arrays travel in what other libraries send and save: by replacing functions of theirs."""
