"""Which catalogue model a row means, by its name as people write it."""

from __future__ import annotations

import re
import unicodedata

from configs.catalogue_files import catalogue_names

SUFFIX = re.compile(
    r"-(?:instruct|chat|thinking|turbo|terminus|it|base|hf|inf|kv|block|dynamic|quantized|quant|awq|gptq|gguf|mlc|lora|mtp)$"
    r"|-(?:nv|mx)?(?:fp|bf|int)\d+$|[-.](?:w\d+a\d+|q\d\w*)$|-(?:\dbits?|\d-bits?|671b|\d{4}|v[01]\.\d)$"
)
"""What follows the name of an architecture: how it was tuned, when, and how its weights are kept."""

MODELS = tuple(
    (re.compile(pattern), name)
    for pattern, name in (
        (r"^deepseek-r1-distill-llama-70b\b", "r1-distill-llama-70b"),
        (r"^deepseek-r1-distill-qwen-7b\b", "qwen2.5-7b"),
        (r"^deepseek-r1-distill-qwen-32b\b", "qwq-32b"),
        (r"(?:^|-)llama-3(?:\.[13])?(?:-nemotron)?-70b\b", "llama-3.1-70b"),
        (r"(?:^|-)(?:llama-3(?:\.1)?|r1-distill-llama)-8b\b", "llama-3.1-8b"),
        (r"(?:^|-)llama-3\.1-405b\b", "llama-3.1-405b"),
        (r"(?:^|-)llama-3\.2-([13])b\b", "llama-3.2-{0}b"),
        (r"^(?:llama-2|codellama)-(7|13|70)b\b", "llama-2-{0}b"),
        (r"^mistral-7b\b", "mistral-7b"),
        (r"^mixtral-8x(7|22)b\b", "mixtral-8x{0}b"),
        (r"^qwen2(?:\.5)?(?:-coder|-math)?-(7|72)b\b", "qwen2.5-{0}b"),
        (r"^(?:qwq|qwen2\.5(?:-coder)?)-32b\b", "qwq-32b"),
        (r"^qwen3-(0\.6|1\.7|4|8|14|32)b\b", "qwen3-{0}b"),
        (r"^qwen3-(?:coder-)?(30b-a3b|235b-a22b)\b", "qwen3-{0}"),
        (r"^gpt-oss-(20|120)b\b", "gpt-oss-{0}b"),
        (r"^deepseek-(?:r1/v3|v3/r1|v3(?:\.1)?|r1)$", "deepseek-v3"),
        (r"^kimi-k2(?:\.[56])?$", "kimi-k2"),
        (r"^minimax-m2(?:\.[15])?$", "minimax-m2"),
        (r"^falcon-(7|40)b\b", "falcon-{0}b"),
        (r"^(?:megatron|mt-nlg|megatron-turing-nlg)-530b\b", "megatron-530b"),
        (r"^gpt(?:-3)?-(20|89|175)b\b", "gpt-{0}b"),
        (r"^phi-3-mini(?:-4k)?$", "phi-3-mini-4k"),
    )
)
"""Catalogue models by plain name, of which groups are a part; the same architecture serves every release of a model."""


def plain_name(name: str) -> str:
    """Return a name as catalogue models are spelled: small letters, dashes, without what follows the architecture.

    >>> plain_name("Llama 3.1 8B Instruct (FP8)"), plain_name("Llama2_13B-chat-hf"), plain_name("GPT OSS 120B")
    ('llama-3.1-8b', 'llama-2-13b', 'gpt-oss-120b')
    """
    text = spelled(re.sub(r"\(.*?\)", " ", name))
    while (shorter := SUFFIX.sub("", text)) != text:
        text = shorter
    return text


def spelled(name: str) -> str:
    """Return a name in small letters with dashes, all of it.

    >>> spelled("Kimi K2 Thinking"), spelled("llama-v3p1-8b_instruct")
    ('kimi-k2-thinking', 'llama-3.1-8b-instruct')
    """
    text = re.sub(r"[\s_\-\u2010-\u2015]+", "-", unicodedata.normalize("NFKC", name).lower()).strip("-")
    text = re.sub(r"^meta-(?=llama)", "", text)
    text = re.sub(r"\b(llama|gemma|phi|mistral|falcon)-?v?(?=\d)", r"\1-", text)
    text = re.sub(r"^qwen-(?=\d)", "qwen", text)
    return re.sub(r"(?<=-\d)p(?=\d)", ".", text)


def model_named(name: str) -> str | None:
    """Return the catalogue model of a name, with or without an organisation before it; None if there is none.

    >>> model_named("nvidia/DeepSeek-R1-FP4"), model_named("Mixtral 8x7B"), model_named("Falcon-180B")
    ('deepseek-v3', 'mixtral-8x7b', None)
    """
    plain = [plain_name(name), plain_name(name.rpartition("/")[2])]
    found = ((pattern.search(text), model) for text in plain for pattern, model in MODELS)
    named = (model.format(*match.groups()) for match, model in found if match)
    known = (text for text in plain if text in catalogue_names("models"))
    return next(named, None) or next(known, None)
