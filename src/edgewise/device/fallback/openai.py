"""A classification as a chat completion: one image or text, one name of a class. Pure: bytes out, bytes in.

Requests and replies are those of `POST /chat/completions` (OpenAI API reference, "Create chat completion"), of which
only what docs/reference/cloud-protocol.md names is used.
"""

from __future__ import annotations

import base64
from collections.abc import Sequence

import msgspec
import numpy as np

from edgewise.contracts.base import Value
from edgewise.device.fallback.conservative import labels_of, one_hot
from edgewise.device.fallback.options import CloudOptions
from edgewise.device.fallback.png import SIGNATURE, pixels_of, png_of
from edgewise.device.fallback.question import Local, Question
from edgewise.errors import ConfigError, MalformedReplyError
from edgewise.runtimes.base import Array

PATH = "/chat/completions"
MOST_IN_SCHEMA = 500
"""Classes: with more, only the words of the request say what an answer may be."""
_JPEG = b"\xff\xd8\xff"
_OWN = frozenset({"model", "messages", "response_format", "stream", "n"})


class _Message(msgspec.Struct):
    content: str


class _Choice(msgspec.Struct):
    message: _Message
    finish_reason: str


class _Reply(msgspec.Struct):
    """Of the reply only this is read; servers add keys of their own."""

    choices: list[_Choice]


class _Label(Value, kw_only=True):
    label: str


def check_options(options: CloudOptions) -> None:
    """Raise ConfigError where the options cannot make a request."""
    if not options.model:
        raise ConfigError("the cloud server's `model` is not named", required="the name of a model, for `openai`")
    if taken := sorted(_OWN & options.parameters.keys()):
        raise ConfigError(f"the cloud parameters hold {', '.join(taken)}", required="none that the request sets itself")


def unsendable(local: Local) -> str:
    """Return why an input cannot be asked about, empty where it can."""
    ready, original = local.ready, local.original
    if not labels_of(ready) or len(ready.session.outputs) != 1:
        return "the bundle names no classes to ask for"
    if isinstance(original, bytes):
        return "" if _media_type(original) else "the original is neither text nor a PNG or JPEG file"
    if isinstance(original, str):
        return "" if original.strip() else "the original is an empty text"
    if ready.manifest is None or ready.manifest.preprocessing.image is None or len(local.inputs) != 1:
        return "the inputs are no image, and no original was given"
    return ""


def request(question: Question, options: CloudOptions) -> bytes:
    """Return the body of the request. Raises ConfigError where the tensor is no image."""
    labels = labels_of(question.ready)
    body = {
        **options.parameters,
        "model": options.model,
        "messages": [
            {"role": "system", "content": _words(labels)},
            {"role": "user", "content": [_part(question)]},
        ],
        "response_format": _format(labels),
    }
    return msgspec.json.encode(body)


def answer(reply: bytes, question: Question) -> dict[str, Array]:
    """Return the outputs that a reply stands for: 1 for the class that it names, 0 for the others.

    Raises MalformedReplyError unless the first choice is finished and holds `{"label": L}` alone, L one of the classes.
    """
    try:
        choices = msgspec.json.decode(reply, type=_Reply).choices
        if not choices or choices[0].finish_reason != "stop":
            raise _malformed("no choice that is finished with `stop`")
        label = msgspec.json.decode(choices[0].message.content, type=_Label).label
        return one_hot(label, question.ready)
    except (msgspec.MsgspecError, UnicodeError, RecursionError) as error:
        raise _malformed("no chat completion with a JSON object as its content") from error
    except ConfigError as error:
        raise _malformed("a label that is none of the classes") from error


def _words(labels: Sequence[str]) -> str:
    names = msgspec.json.encode(labels).decode()
    return (
        'You classify one input. Answer with one JSON object {"label": L} and nothing else, '
        f"where L is exactly one of these strings: {names}"
    )


def _part(question: Question) -> dict[str, object]:
    if isinstance(question.original, str):
        return {"type": "text", "text": question.original}
    if isinstance(question.original, bytes):
        media_type, data = _media_type(question.original), question.original
    else:
        media_type, data = "image/png", _png(question)
    url = f"data:{media_type};base64,{base64.b64encode(data).decode()}"
    return {"type": "image_url", "image_url": {"url": url}}


def _png(question: Question) -> bytes:
    (tensor,) = question.inputs.values()
    manifest = question.ready.manifest
    options = None if manifest is None else manifest.preprocessing.image
    pixels = None if options is None else pixels_of(np.asarray(tensor), options)
    if pixels is None:
        raise ConfigError("the input is no image", required="one tensor of one image, or the original")
    return png_of(pixels)


def _format(labels: Sequence[str]) -> dict[str, object]:
    if len(labels) > MOST_IN_SCHEMA:
        return {"type": "json_object"}
    schema = {
        "type": "object",
        "properties": {"label": {"type": "string", "enum": list(labels)}},
        "required": ["label"],
        "additionalProperties": False,
    }
    return {"type": "json_schema", "json_schema": {"name": "answer", "strict": True, "schema": schema}}


def _media_type(data: bytes) -> str:
    return "image/png" if data.startswith(SIGNATURE) else "image/jpeg" if data.startswith(_JPEG) else ""


def _malformed(what: str) -> MalformedReplyError:
    return MalformedReplyError(f"the cloud server answered with {what}", required='a content of {"label": "a class"}')
