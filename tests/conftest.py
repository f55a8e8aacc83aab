"""Before anything of minivlm is imported: have every annotated shape checked, which only tests pay for."""

from jaxtyping import install_import_hook

# The numeric tower: an int is welcome where a float is asked for, as type checkers have it.
install_import_hook("minivlm", "beartype.beartype(conf=beartype.BeartypeConf(is_pep484_tower=True))")
