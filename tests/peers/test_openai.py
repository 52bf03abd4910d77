#!/usr/bin/env python3
"""The `openai` package as a client of the daemon: test_openai.py SOCKET [TEST_NAME_PART]. Run by run.sh."""

import asyncio
import base64
import struct
import sys
import time
import traceback
import zlib

import httpx
import openai

SOCKET = sys.argv[1]
CHOSEN = sys.argv[2] if len(sys.argv) > 2 else ""
LOCAL = {"tether": {"route": "local"}}
CLOUD = {"tether": {"route": "cloud"}}
QUESTION = [{"role": "user", "content": "Name three things in a kitchen."}]


def client(kind=openai.OpenAI, http=httpx.Client, transport=httpx.HTTPTransport):
    return kind(base_url="http://tether/v1", api_key="unused", max_retries=0, timeout=180,
                http_client=http(transport=transport(uds=SOCKET), timeout=180))


def ask(**options):
    arguments = {"model": "tether", "messages": QUESTION, "max_tokens": 16, "extra_body": LOCAL} | options
    return client().chat.completions.create(**arguments)


def png(red, green, blue, size=64):
    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    row = b"\0" + bytes([red, green, blue]) * size
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", size, size, 8, 2, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", zlib.compress(row * size)) + chunk(b"IEND", b"")


def with_image(data):
    url = "data:image/png;base64," + base64.b64encode(data).decode()
    return [{"role": "user", "content": [{"type": "text", "text": "What do you see?"},
                                         {"type": "image_url", "image_url": {"url": url}}]}]


def refused(status, kind, **options):
    try:
        ask(**options)
    except kind as error:
        assert error.status_code == status, error.status_code
        return error
    raise AssertionError(f"{kind.__name__} was expected")


def test_models_are_listed():
    names = [model.id for model in client().models.list()]
    assert names, "no model is listed"


def test_an_answer_in_one_piece():
    answer = ask()
    choice = answer.choices[0]
    assert answer.object == "chat.completion" and answer.id and answer.created > 1_600_000_000
    assert choice.message.role == "assistant" and choice.message.content
    assert choice.finish_reason in ("stop", "length")
    assert answer.usage.total_tokens == answer.usage.prompt_tokens + answer.usage.completion_tokens
    assert answer.usage.completion_tokens <= 16
    assert answer.model_extra["tether"]["route"] == "local"


def test_a_stream_is_the_same_answer_with_the_usage_at_the_end():
    whole = ask(seed=1).choices[0].message.content
    chunks = list(ask(seed=1, stream=True, stream_options={"include_usage": True}))
    assert len({chunk.id for chunk in chunks}) == 1
    assert chunks[0].choices[0].delta.role == "assistant"
    assert chunks[-1].choices == [] and chunks[-1].usage.completion_tokens > 0
    deltas = [chunk.choices[0] for chunk in chunks if chunk.choices]
    assert "".join(choice.delta.content or "" for choice in deltas) == whole
    assert [choice.finish_reason for choice in deltas[:-1]] == [None] * (len(deltas) - 1)
    assert deltas[-1].finish_reason in ("stop", "length")


def test_max_tokens_ends_with_length():
    answer = ask(max_tokens=3)
    assert answer.choices[0].finish_reason == "length" and answer.usage.completion_tokens == 3


def test_a_stop_string_ends_the_answer_and_is_not_shown():
    whole = ask(max_tokens=24, temperature=0).choices[0].message.content
    stop = whole[len(whole) // 2 :][:3]
    answer = ask(max_tokens=24, temperature=0, stop=[stop])
    assert answer.choices[0].message.content == whole[: whole.index(stop)]
    assert answer.choices[0].finish_reason == "stop"


def test_a_seed_repeats_an_answer_and_another_changes_it():
    def words(seed):
        return ask(seed=seed, temperature=1.5, max_tokens=24).choices[0].message.content

    assert words(11) == words(11)
    assert len({words(seed) for seed in (1, 2, 3)}) > 1


def test_errors_have_openai_s_types():
    error = refused(400, openai.BadRequestError, messages=[])
    assert error.body["message"] and error.body["type"] == "invalid_request_error"
    refused(400, openai.BadRequestError, messages=[{"role": "nobody", "content": "x"}])
    refused(400, openai.BadRequestError, temperature=-1)
    error = refused(400, openai.BadRequestError, logprobs=True)
    assert error.code == "unsupported_parameter", error.code
    error = refused(400, openai.BadRequestError, messages=with_image(b"no picture"))
    assert "image" in error.body["message"].lower()


def test_the_gateway_answers_through_llama_cpp():
    answer = ask(extra_body=CLOUD)
    about = answer.model_extra["tether"]
    assert about["route"] == "cloud" and answer.choices[0].message.content, about
    assert "peer" in answer.model, answer.model
    assert answer.usage.completion_tokens > 0
    assert about["uplink_bytes"] > 0 and about["downlink_bytes"] > 0


def test_the_gateway_streams_through_llama_cpp():
    chunks = list(ask(extra_body=CLOUD, stream=True, stream_options={"include_usage": True}))
    text = "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)
    assert text and chunks[-1].usage.completion_tokens > 0


def test_images_travel_as_views_or_stay():
    for extra, route, views in ((LOCAL, "local", 0), (CLOUD, "cloud", 1)):
        answer = ask(messages=with_image(png(200, 30, 30)), extra_body=extra)
        about = answer.model_extra["tether"]
        assert answer.choices[0].message.content
        assert (about["route"], len(about["views"])) == (route, views), about


def test_a_client_that_goes_away_frees_the_model():
    stream = ask(stream=True, max_tokens=2000, messages=[{"role": "user", "content": "Count to one thousand."}])
    for _ in range(3):
        next(stream)
    stream.close()
    started = time.monotonic()
    assert ask(max_tokens=1).usage.completion_tokens == 1
    # The abandoned answer would have taken far longer than this.
    assert time.monotonic() - started < 15


def test_many_clients_at_once():
    async def all_of_them():
        many = client(openai.AsyncOpenAI, httpx.AsyncClient, httpx.AsyncHTTPTransport)
        turns = [many.chat.completions.create(model="tether", messages=QUESTION, max_tokens=4, extra_body=LOCAL)
                 for _ in range(4)]
        return await asyncio.gather(*turns)

    assert all(answer.choices[0].message.content for answer in asyncio.run(all_of_them()))


def main():
    tests = [(name, test) for name, test in globals().items() if name.startswith("test_") and CHOSEN in name]
    failed = 0
    for name, test in tests:
        try:
            test()
            print(f"ok      {name}", flush=True)
        except Exception:
            failed += 1
            print(f"FAILED  {name}", flush=True)
            traceback.print_exc()
    print(f"{len(tests) - failed} passed, {failed} failed")
    return 1 if failed or not tests else 0


if __name__ == "__main__":
    sys.exit(main())
