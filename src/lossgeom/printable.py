"""Text from files as it may be shown: nothing in it moves a cursor or hides what follows."""


def printable(text: str, keep: str = "") -> str:
    r"""Text with every character that is not printed, but for those to keep, as its escape.

    >>> printable("a\x1b[2Jb"), printable("1\n2", keep="\n")
    ('a\\x1b[2Jb', '1\n2')
    """
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() or c in keep else _escaped(c) for c in text)


def _escaped(character: str) -> str:
    return character.encode("unicode_escape").decode()
