"""Compose the settings of the same options once: a patch of Hydra 1.3.

Hydra composes the settings of a job three times: for this package's checks, to find out whether it is a multirun, and
for the job. The checks also compose those of each job of a sweep. A composition takes 0.45 s on a slow core, and nine
tenths of that go into the choice and the merge of the options, before Hydra applies the values of single settings. With
the patch, 100 jobs that differ in such values are checked in 6 s instead of 49.
"""

import copy
from collections.abc import Callable, Hashable
from pathlib import Path
from typing import Any

import hydra
from hydra._internal import config_loader_impl
from hydra._internal.defaults_list import DefaultsList
from hydra.core.config_store import ConfigStore

_MOST = 32
"""Number of results that are kept: a sweep may combine many options, and each merge holds all settings."""


def remember_options(conf: Path) -> None:
    """Make Hydra keep the options that it has chosen and merged; does nothing with other versions than 1.3.

    Args:
        conf: folder of the package's options. Other folders of options, as of --config-dir, are read each time.
    """
    loader: Any = config_loader_impl.ConfigLoaderImpl
    if not hydra.__version__.startswith("1.3.") or getattr(loader, "remembers_options", False):
        return
    loader.remembers_options = True
    choose, merge = config_loader_impl.create_defaults_list, loader._compose_config_from_defaults_list
    chosen, merged = _results

    def is_own(repo: Any) -> bool:
        sources = {(source.scheme(), source.path) for source in repo.get_sources()}
        return sources <= {("pkg", "hydra.conf"), ("structured", ""), ("file", str(conf))}

    def remembered_choice(
        repo: Any, config_name: str | None, overrides_list: list[Any], prepend_hydra: bool, skip_missing: bool
    ) -> DefaultsList:
        def select() -> DefaultsList:
            return choose(repo, config_name, overrides_list, prepend_hydra, skip_missing)

        if not is_own(repo):
            return select()
        # As Hydra's `Overrides` does: everything else sets a single value and plays no part in the choice.
        values = [o for o in overrides_list if isinstance(o.value(), dict) or not repo.group_exists(o.key_or_group)]
        options = tuple(o.input_line for o in overrides_list if o not in values)
        found = chosen.get((config_name, options, prepend_hydra, skip_missing), select)
        values = [o for o in values if not o.is_sweep_override()]
        return DefaultsList(found.defaults, found.defaults_tree, values, found.overrides)

    def remembered_merge(self: Any, defaults: list[Any], repo: Any) -> Any:
        if not is_own(repo):
            return merge(self, defaults, repo)
        return copy.deepcopy(merged.get(repr(defaults), lambda: merge(self, defaults, repo)))

    config_loader_impl.create_defaults_list = remembered_choice
    loader._compose_config_from_defaults_list = remembered_merge
    # For each composition Hydra copies its sources, and with one of them all options in its store, to change the list
    # of sources in the copy. That took half of the time that is left. Options are copied one by one as they are loaded.
    store: Any = ConfigStore
    store.__deepcopy__ = lambda self, memo: self


def forget_options() -> None:
    """Let Hydra choose and merge all options again, because options in its ConfigStore have changed."""
    for results in _results:
        results.clear()


class _Results:
    """The results that were used last, by key."""

    def __init__(self) -> None:
        self._by_key: dict[Hashable, Any] = {}

    def get(self, key: Hashable, compute: Callable[[], Any]) -> Any:
        """Return the result of a key; it is computed if it is not kept."""
        result = self._by_key.pop(key) if key in self._by_key else compute()
        self._by_key[key] = result  # in the last place, which is that of the newest use
        if len(self._by_key) > _MOST:
            del self._by_key[next(iter(self._by_key))]
        return result

    def clear(self) -> None:
        """Keep no result."""
        self._by_key.clear()


_results = _Results(), _Results()
"""The options that were chosen, and the settings that were merged."""
