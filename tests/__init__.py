"""The type checker that every test runs under: beartype, with int accepted where float is."""

from beartype import BeartypeConf, beartype

check = beartype(conf=BeartypeConf(is_pep484_tower=True))
