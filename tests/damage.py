"""Damage of every kind to bytes and to what JSON holds."""

import copy
import json


def damaged(content, rng):
    """Bytes that are changed, cut off, left out or put in."""
    content, at = bytearray(content), rng.randrange(len(content))
    kind = rng.randrange(5)
    if kind <= 1:
        for _ in range(rng.randint(1, 4)):
            content[rng.randrange(len(content))] = rng.randrange(256)
    elif kind == 2:
        del content[at:]
    elif kind == 3:
        del content[at : at + rng.randint(1, 9)]
    else:
        content[at:at] = rng.randbytes(rng.randint(1, 9))
    return bytes(content)


ODD = (None, True, 0, -1, 0.5, "x", "", [], {}, [1], {"a": 1}, "nan", float("nan"), 10**400, 2**70,
       "\x1b[2J", "../..")  # fmt: skip


def damaged_json(content, rng):
    """What JSON holds, with one part deleted, of another type, very large or very deep."""
    content = copy.deepcopy(content)
    places = list(_places(content))
    if not places:
        return rng.choice(ODD)
    holder, key = rng.choice(places)
    kind = rng.randrange(4)
    if kind == 0:
        del holder[key]
    elif kind == 1:
        for _ in range(rng.choice([20, 200])):
            holder[key] = [holder[key]]
    else:
        holder[key] = rng.choice(ODD)
    return content


def _places(content):
    items = content.items() if isinstance(content, dict) else enumerate(content)
    for key, item in items:
        yield content, key
        if isinstance(item, (dict, list)):
            yield from _places(item)


def damage_folder(folder, rng):
    """One file of a folder deleted, emptied, or damaged as bytes or in what its JSON holds."""
    path = rng.choice(sorted(p for p in folder.rglob("*") if p.is_file() and p.name != ".lock"))
    kind = rng.randrange(6)
    if kind == 0:
        path.unlink()
    elif kind == 1:
        path.write_bytes(b"")
    elif kind == 2 and path.stat().st_size:
        path.write_bytes(damaged(path.read_bytes(), rng))
    elif path.suffix == ".json":
        path.write_text(json.dumps(damaged_json(json.loads(path.read_text()), rng)))
    elif path.suffix == ".jsonl" and path.stat().st_size:
        lines = path.read_text().splitlines()
        i = rng.randrange(len(lines))
        lines[i] = json.dumps(damaged_json(json.loads(lines[i]), rng))
        path.write_text("\n".join(lines) + "\n")
    return path
