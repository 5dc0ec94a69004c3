"""Settings that take a number or a word: a patch of OmegaConf 2.3.

Hydra merges settings with OmegaConf's `unsafe_merge`, which fails for a field of several types, such as `int | str`
(omegaconf#1087, mended by its PR 1285 for the version after 2.3).
"""

from typing import Any

import omegaconf


def allow_unions() -> None:
    """Let a setting have several types; does nothing with other versions than 2.3."""
    node: Any = omegaconf.UnionNode
    if not omegaconf.__version__.startswith("2.3.") or getattr(node, "may_have_no_root", False):
        return
    node.may_have_no_root = True
    root_of = node._get_root

    def own_root(self: Any) -> Any:
        # OmegaConf asks whether a value is of the same settings. One that is not in any yet has no root to compare.
        return self if self._get_parent() is None else root_of(self)

    node._get_root = own_root
