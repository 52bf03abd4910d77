#!/usr/bin/env python3
"""Writes models/tests/golden/chat.json: the chat templates of models/tests/templates rendered by Jinja itself, set up
as transformers sets it up (https://huggingface.co/docs/transformers/chat_templating).

    .cache/peers/venv/bin/python tests/peers/golden_chat.py
"""

import json
from datetime import datetime
from pathlib import Path

from jinja2.ext import loopcontrols
from jinja2.exceptions import TemplateError
from jinja2.sandbox import ImmutableSandboxedEnvironment

TESTS = Path(__file__).resolve().parents[2] / "models" / "tests"
NOW = datetime(2025, 3, 9, 12, 0, 0)

SYSTEM, USER, ASSISTANT = "system", "user", "assistant"
DIALOGUES = {
    "one question": [(USER, "What do you see?")],
    "with a system message": [(SYSTEM, "You are a robot."), (USER, "What do you see?")],
    "four turns": [(SYSTEM, "  You are a robot. \n"), (USER, " Hi\n"), (ASSISTANT, "Hello!"), (USER, "And now?"),
                   (ASSISTANT, "Now I wait.\n")],
    "reasoning in the history": [(USER, "2+2?"), (ASSISTANT, "<think>\ntwo and two\n</think>\n\n4"), (USER, "Sure?")],
    "markup and unicode": [(USER, "<b>fish & chips</b> 'x' \"y\" é 🙂 {{ no }} {% no %}")],
    "two users in a row": [(USER, "one"), (USER, "two")],
    "empty content": [(SYSTEM, ""), (USER, "")],
}


def raise_exception(message):
    raise TemplateError(message)


def tojson(value, ensure_ascii=False, indent=None, separators=None, sort_keys=False):
    return json.dumps(value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys)


def environment():
    jinja = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True, extensions=[loopcontrols])
    jinja.filters["tojson"] = tojson
    jinja.globals |= {"raise_exception": raise_exception, "strftime_now": NOW.strftime}
    return jinja


def render(template, dialogue, generate):
    messages = [{"role": role, "content": content} for role, content in dialogue]
    try:
        text = template.render(messages=messages, add_generation_prompt=generate, tools=None, documents=None,
                               bos_token="<bos>", eos_token="<eos>")
        return {"text": text}
    except TemplateError as error:
        return {"refused": str(error)}


def main():
    cases = []
    for path in sorted((TESTS / "templates").glob("*.jinja")):
        template = environment().from_string(path.read_text())
        for name, dialogue in DIALOGUES.items():
            for generate in [True, False]:
                case = {"template": path.name, "dialogue": name, "messages": dialogue, "add_generation_prompt": generate}
                cases.append(case | render(template, dialogue, generate))
    path = TESTS / "golden" / "chat.json"
    lines = ",\n".join(json.dumps(case) for case in cases)
    path.write_text(f'{{"now": "{NOW.isoformat()}Z", "cases": [\n{lines}\n]}}\n')
    print(f"wrote {len(cases)} cases to {path}")


if __name__ == "__main__":
    main()
