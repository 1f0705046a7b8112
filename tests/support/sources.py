"""Reads classes and functions out of the C++ sources, as far as `.clang-format` makes them easy to recognise."""
import re
from dataclasses import dataclass

LITERAL = re.compile(
    r'R"(\w*)\((?s:.*?)\)\1"|//[^\n]*|/\*(?s:.*?)\*/|"(?:\\.|[^"\\\n])*"|\'(?:\\.|[^\'\\\n])+\''
)

LABEL = re.compile(r"\b(?:public|protected|private):")


def stripped(text):
    """The text without comments, directives and what strings hold; its lines keep their numbers."""

    def replaced(found):
        return (
            '""' + "\n" * found[0].count("\n")
            if found[0][0] in "R\"'"
            else "\n" * found[0].count("\n")
        )

    text = LITERAL.sub(replaced, text)
    return re.sub(
        r"^[ \t]*#(?:\\\n|[^\n])*", lambda found: "\n" * found[0].count("\n"), text, flags=re.M
    )


@dataclass
class Scope:
    kind: str  # namespace, class, function or other
    name: str = ""
    line: int = 0
    methods: int = 0
    members: int = 0
    virtuals: int = 0


def without_templates(text):
    """TEXT without what is between angle brackets, and without attributes and alignments."""
    text = re.sub(
        r"\balignas\([^)]*\)|\[\[[^\]]*\]\]|operator\s*(?:<=>|<<|>>|<=|>=|->|<|>)",
        "operator_",
        text,
    )
    while (shorter := re.sub(r"<[^<>]*>", "", text)) != text:
        text = shorter
    return text


def count_statement(scope, text):
    """Adds a declaration of a class to its methods or members."""
    plain = without_templates(LABEL.sub("", text).strip())
    if not plain or re.match(
        r"(?:template\s*)?(?:using|friend|typedef|static_assert|enum|static constexpr|static inline)\b",
        plain,
    ):
        return
    if re.fullmatch(r"(?:class|struct|union)\s+\w+", plain):
        return
    declared = re.split(r"=|\{", plain)[0] if "operator" not in plain else plain
    if "(" in declared and "(*" not in declared:
        scope.methods += 1
        scope.virtuals += bool(re.match(r"virtual\b", plain))
    elif not plain.startswith("static "):
        scope.members += 1 + re.sub(r"\([^()]*\)|\{[^{}]*\}", "", plain).count(",")


def kind_of(head, text, at):
    """What the brace at AT opens, and its name."""
    plain = without_templates(head).strip()
    if re.search(r"(?:^|\s)(?:inline )?namespace\b|^extern\b[^()]*$", plain):
        return "namespace", ""
    found = re.search(
        r"\b(?:class|struct|union)\s+(?:[\w:]+::)?(\w+)(?:\s+final)?\s*(?::[^()]*)?$", plain
    )
    if found:
        return "class", found[1]
    if (
        re.search(r"\benum\b", plain)
        or "(" not in plain
        or "=" in re.sub(r"operator\s*\S+|\([^()]*\)", "", plain)
    ):
        return "other", ""
    if not text[at - 1].isspace():  # a member that is initialised before the body
        return "other", ""
    name = re.search(r"([\w:~]+|operator\W+)\s*\(", plain)
    return "function", name[1] if name else ""


def scopes_of(text):
    """The classes and functions of a source text, from the inner ones outwards, with the numbers of their lines."""
    text = stripped(text)
    stack, start = [(Scope("namespace"), 0)], 0
    for found in re.finditer(r"[{};]", text):
        scope, at = stack[-1][0], found.start()
        if found[0] == "{":
            head = LABEL.sub(lambda label: " " * len(label[0]), text[start:at])
            kind, name = (
                kind_of(head, text, at) if scope.kind in ("namespace", "class") else ("other", "")
            )
            line = text.count("\n", 0, start + len(head) - len(head.lstrip())) + 1
            stack.append((Scope(kind, name, line), start))
            if kind in ("namespace", "class"):
                start = at + 1
        elif found[0] == "}":
            if len(stack) == 1:
                raise ValueError("more braces are closed than opened")
            closed, begin = stack.pop()
            outer = stack[-1][0]
            if closed.kind in ("class", "function"):
                yield closed, text.count("\n", 0, at) + 1
            if closed.kind == "function" and outer.kind == "class":
                count_statement(outer, text[begin:at].split("{")[0] + "{")
            if closed.kind in ("namespace", "class", "function"):
                start = at + 1
        elif scope.kind in ("namespace", "class"):
            if scope.kind == "class":
                count_statement(scope, text[start:at])
            start = at + 1
    if len(stack) != 1:
        raise ValueError("more braces are opened than closed")


def classes_of(text):
    return [scope for scope, _ in scopes_of(text) if scope.kind == "class"]


def functions_of(text):
    """(name, lines) of every function that has a body."""
    return [
        (scope.name, end - scope.line + 1)
        for scope, end in scopes_of(text)
        if scope.kind == "function"
    ]
