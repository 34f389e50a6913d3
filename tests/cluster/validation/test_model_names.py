"""Models are known by their names as people write them; what has another architecture is not."""

import pytest

from cluster.validation.model_names import model_named
from configs.catalogue_files import catalogue_names

SPELLINGS = {
    "llama-3.1-8b": ("meta-llama/Llama-3.1-8B-Instruct", "Llama 3.1 8B", "llama3.1_8b", "LLaMA-3-8B",
                     "Meta-Llama-3-8B-Instruct.Q4_K_M", "Llama-3.1-8B-Instruct-quantized.w4a16",
                     "llama-v3p1-8b-instruct",
                     "Llama\u20113.1\u20118B", "DeepSeek-R1-Distill-Llama-8B", "Hermes-3-Llama-3.1-8B"),
    "llama-3.1-70b": ("nvidia/Llama-3.3-70B-Instruct-FP4", "meta/llama3-70b-instruct", "Llama 3 70B (FP8)"),
    "llama-2-70b": ("Llama2-70B", "Llama-2-70b-chat-hf"),
    "deepseek-v3": ("DeepSeek-R1", "deepseek-ai/DeepSeek-V3-0324", "DeepSeek V3.1", "DeepSeek-R1 671B",
                    "DeepSeek-V3/R1"),
    "gpt-oss-120b": ("openai/gpt-oss-120b", "GPT OSS 120B"),
    "qwen3-235b-a22b": ("Qwen3 235B A22B", "Qwen/Qwen3-235B-A22B-Instruct-2507-FP8"),
    "qwen2.5-7b": ("DeepSeek-R1-Distill-Qwen-7B", "Qwen2.5-Coder-7B-Instruct"),
    "mixtral-8x7b": ("Mixtral 8x7B", "mistralai/Mixtral-8x7B-Instruct-v0.1"),
    "gemma-2-9b": ("google/gemma-2-9b-it", "Gemma2 9B"),
    "kimi-k2": ("moonshotai/Kimi-K2-Instruct-0905", "Kimi K2 Thinking"),
    "": ("", "gpt-oss", "Falcon-180B", "DeepSeek-V3.2-Exp", "Llama-3.2-11B-Vision", "Phi-4-mini", "Qwen2.5-VL-72B",
         "Qwen3-Next-80B-A3B", "Llama-4-Scout-17B-16E", "Llama-Guard-3-8B"),
}  # fmt: skip


@pytest.mark.parametrize("model", SPELLINGS)
def test_spellings_of_a_model(model):
    assert {model_named(text) for text in SPELLINGS[model]} == {model or None}


def test_every_catalogue_model_is_known_by_its_own_name():
    same = {"deepseek-r1": "deepseek-v3", "llama-3.3-70b": "llama-3.1-70b"}
    assert all(model_named(name) == same.get(name, name) for name in catalogue_names("models"))
