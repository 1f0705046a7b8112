"""The words that messages and pages do without, and the messages of a source file."""
import re

# What a crash leaves behind is the only thing behind another.
NOT_PLAIN = re.compile(
    r"(?<!leave )(?<!leaves )(?<!left )\b(behind)\b|\b(lies?|lying|told|tells?|telling|whoever|folders?|anew|stands? in|in front of|"
    r"goes on|beside|strangers?|how far)\b",
    re.I,
)
PLAIN = re.compile(NOT_PLAIN.pattern + r"|\b(looks? (?:at|for)|looked (?:at|for))\b", re.I)
# A comment, an include, a character, or a string with what it holds.
TOKEN = re.compile(
    r'//[^\n]*|/\*.*?\*/|#include[^\n]*|\'(?:[^\'\\]|\\.)+\'|"((?:[^"\\\n]|\\.)*)"', re.S
)


def messages(path):
    """The strings of a source file, with their lines; parts that follow one another are one string."""
    text = path.read_text()
    found, end = [], None
    for token in TOKEN.finditer(text):
        if token[1] is None:
            continue
        if end is not None and not text[end : token.start()].strip():
            found[-1][1] += token[1]
        else:
            found.append([text.count("\n", 0, token.start()) + 1, token[1]])
        end = token.end()
    return found
