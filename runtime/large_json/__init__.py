"""JSON documents that are mostly numbers, megabytes of them, read and written without holding the interpreter for long.

    reading.py   finds long number lists in a document, cuts them out, and leaves the small rest to a JSON parser
    grid.py      one such list becomes an array: brackets checked, numbers read, piece by piece
    writing.py   an array becomes a JSON list, piece by piece

Reading accepts only what a parser of the whole document and numpy would read alike, and otherwise declines: then the caller
takes that slower way, whose words for what is wrong stay the only ones.
"""
