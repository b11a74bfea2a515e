"""How the documentation is built: ``sphinx-build -W -n docs <output>``, without a network."""

from __future__ import annotations

from typing import TYPE_CHECKING

import aiostorage

if TYPE_CHECKING:
    from docutils.nodes import Element, TextElement
    from sphinx.application import Sphinx
    from sphinx.environment import BuildEnvironment

project = "aiostorage"
author = "the aiostorage developers"
project_copyright = f"2026, {author}"
version = release = aiostorage.__version__

extensions = [
    "myst_parser",
    "sphinx.ext.autodoc",
    "sphinx.ext.napoleon",
    "sphinx_click",
]
exclude_patterns = ["_build"]

html_theme = "furo"
html_title = f"aiostorage {release}"

myst_enable_extensions = ["colon_fence", "deflist"]
myst_heading_anchors = 3

# The docstrings have types in their signatures and NumPy's sections.
napoleon_google_docstring = False
napoleon_use_rtype = False
autodoc_member_order = "bysource"
autodoc_typehints = "signature"
python_use_unqualified_type_names = True
python_maximum_signature_line_length = 88

# Without "D": help texts name options such as --objective.
smartquotes_action = "qe"

# A name in backticks is an object if there is one of that name; see `plain_or_ours`.
default_role = "py:obj"

nitpick_ignore = [
    ("py:class", "aiostorage.protocols.T"),  # a type variable
    # fixtures pass it to each other; users get a `Deployment`
    ("py:class", "aiostorage.testing.mongodb.deployments.Deployments"),
    # `optimize` makes an `AsyncTrial` of them; users get one
    ("py:class", "aiostorage.optuna.async_objectives.async_trial.StudyTrial"),
    ("py:class", "aiostorage.optuna.async_objectives.deferred_storage.RunningTrial"),
]


def plain_or_ours(
    app: Sphinx, env: BuildEnvironment, node: Element, contnode: TextElement
) -> Element | None:
    """Resolve a reference that was not found as it is written.

    Docstrings call things by their last name, wherever these are documented. What is not in
    the index (a parameter) or belongs to another project (whose inventory would need a network)
    stays text. A name that starts with ``aiostorage.`` and is public has to be found.
    """
    if node.get("refdomain") != "py":
        return None
    target = str(node["reftarget"])
    if target.startswith("aiostorage."):
        private = any(part.startswith("_") for part in target.split("."))
        return contnode if private else None
    domain = env.domains.python_domain
    matches = {
        entry.docname + entry.node_id: name
        for name, entry in domain.objects.items()
        if name.endswith(f".{target}") and not entry.aliased
    }
    # a method of `Storage` before that of the record or the view with the same name
    names = sorted(matches.values(), key=lambda name: not name.startswith("aiostorage.Storage"))
    if not names or (len(names) > 1 and "Storage." not in names[0]):
        return contnode
    found = domain.objects[names[0]]
    from sphinx.util.nodes import make_refnode  # noqa: PLC0415  Sphinx is running only here

    return make_refnode(
        app.builder, str(node["refdoc"]), found.docname, found.node_id, contnode, names[0]
    )


def setup(app: Sphinx) -> None:
    """Register what is ours."""
    app.connect("missing-reference", plain_or_ours)
