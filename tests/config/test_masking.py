"""What looks like a secret, and what is shown in its place."""

import pytest

from supervisord_cp.config.masking import looks_secret, mask_argv, mask_url


@pytest.mark.parametrize(
    "name",
    [
        "HF_TOKEN",
        "hf-token",
        "OPENAI_API_KEY",
        "api-key",
        "AWS_SECRET_ACCESS_KEY",
        "DB_PASSWORD",
        "password",
        "ssl_key_passphrase",
        "APIKEY",
        "GOOGLE_CREDENTIALS",
        "VLLM_AUTH",
    ],
)
def test_secrets_by_their_names(name: str) -> None:
    assert looks_secret(name)


@pytest.mark.parametrize(
    "name",
    [
        "",
        "max-num-batched-tokens",
        "tokenizer",
        "TOKENIZERS_PARALLELISM",
        "HF_TOKEN_PATH",
        "api-key-file",
        "key",
        "VLLM_USE_V1",
        "prefix-caching-hash-algo",
    ],
)
def test_names_that_only_sound_alike(name: str) -> None:
    assert not looks_secret(name)


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("http://me:pa:ss@h:1/x", "http://***@h:1/x"),
        ("http://h:1/a@b", "http://h:1/a@b"),
        ("http://[::1", "http://[::1"),
        ("", ""),
    ],
)
def test_addresses_lose_user_and_password(url: str, shown: str) -> None:
    assert mask_url(url) == shown


def test_flags_of_a_command_lose_their_secrets() -> None:
    argv = ("serve", "--api-key", "k", "--hf-token=t", "--auth-token", "--verbose", "--port", "1", "--token")
    assert mask_argv(argv) == (
        *(
            "serve",
            "--api-key",
            "***",
            "--hf-token=***",
            "--auth-token",
            "--verbose",
            "--port",
            "1",
            "--token",
        ),
    )
