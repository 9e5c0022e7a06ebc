"""HTML from Python: text is escaped, pieces are put together."""

from html import escape


class Html(str):
    """Markup, to be taken as it is; any other text is escaped."""

    __slots__ = ()


def text(value: object) -> Html:
    """Anything as text."""
    return value if isinstance(value, Html) else Html(escape(str(value)))


def join(*children: object) -> Html:
    """Pieces one after the other; None is nothing."""
    return Html("".join(text(child) for child in children if child is not None))


def tag(element: str, *children: object, **attributes: object) -> Html:
    """An element. Names of attributes: a trailing underscore falls, one inside becomes a dash."""
    given = {key.rstrip("_").replace("_", "-"): value for key, value in attributes.items() if value is not None}
    words = "".join(f' {key}="{escape(str(value))}"' for key, value in given.items())
    return Html(f"<{element}{words}>{join(*children)}</{element}>")


def void(element: str, **attributes: object) -> Html:
    """An element without contents or end, as HTML and SVG both take it."""
    return Html(tag(element, **attributes).replace(f"></{element}>", "/>"))
