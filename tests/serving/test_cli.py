"""The commands as a person runs them: output, closing line, exit codes."""

import json
import os
import pathlib
import shlex
import shutil
import subprocess

import pytest

from conftest import BIN, DRAFT, TARGET


def tandem(*arguments, text_in=None, timeout=120):
    return subprocess.run([str(BIN / "tandem"), *map(str, arguments)], input=text_in,
                          capture_output=True, text=True, timeout=timeout, check=False)


MODELS = ["--target", TARGET, "--draft", DRAFT]


def test_generate_starts_a_server_and_prints_the_text_alone(server):
    result = tandem("generate", *MODELS, "--prompt", "Once upon a time", "--max-tokens", 12)
    assert result.returncode == 0, result.stderr
    closing = result.stderr.strip().splitlines()[-1]
    assert closing.startswith("12 tokens · ") and "first token" in closing
    again = tandem("generate", "--endpoint", server.address, "--prompt", "Once upon a time",
                   "--max-tokens", 12, "--speculation", "off")
    assert again.returncode == 0, again.stderr
    assert again.stdout.strip("\n") == result.stdout.strip("\n") != ""
    assert "plain" not in again.stderr  # it is plain, and nothing to compare with


def test_chat_keeps_the_conversation(server):
    result = tandem("chat", "--endpoint", server.address, "--max-tokens", 24,
                    text_in="My name is Alice.\nWhat is my name?\n/exit\n")
    assert result.returncode == 0, result.stderr
    assert result.stderr.count("tok/s") == 2


def test_tokenize_prints_ids():
    whole = tandem("tokenize", "--model", TARGET, text_in="Hello world\nHello")
    lines = tandem("tokenize", "--model", TARGET, "--lines", text_in="Hello world\nHello\n")
    assert whole.returncode == lines.returncode == 0
    assert len(whole.stdout.splitlines()) == 1
    assert lines.stdout.splitlines() == ["19556 905", "19556"]


def test_perplexity_puts_the_first_token_where_the_model_wants_one(tmp_path):
    """As llama.cpp: before the whole text, and in each window. 35 tokens are 36 with it."""
    from gguf import GGUFReader

    model = tmp_path / "bos.gguf"
    shutil.copy(DRAFT, model)
    text = tmp_path / "text"
    text.write_text(" word" * 35)
    command = ["eval", "perplexity", "--model", model, "--file", text, "--ctx", 18]
    without = tandem(*command)
    assert without.returncode == 2 and "35 tokens" in without.stderr
    flag = GGUFReader(model, "r+").get_field("tokenizer.ggml.add_bos_token")
    flag.parts[flag.data[0]][0] = True
    assert "in 2 windows of 18" in tandem(*command).stdout


def test_inspect_shows_the_model():
    result = tandem("inspect", TARGET)
    assert result.returncode == 0
    for word in ("llama", "30", "Q4_1", "49152", "blk.0.attn_q.weight"):
        assert word in result.stdout


def test_doctor_says_ok():
    result = tandem("doctor", *MODELS, "--port", "0")
    assert result.returncode == 0, result.stdout + result.stderr
    assert "FAIL" not in result.stdout


def test_doctor_tells_whether_a_pair_fits_a_card_and_what_it_may_gain():
    card = ["--port", "0", "--device", "cuda", "--vram-budget"]
    result = tandem("doctor", *MODELS, *card, "8GiB")
    assert result.returncode == 0, result.stdout + result.stderr
    for word in ("vocabularies match", "spare", "at acceptance"):
        assert word in result.stdout
    too_small = tandem("doctor", *MODELS, *card, "100MiB")
    assert too_small.returncode == 1 and "smaller model" in too_small.stdout


def test_serve_dry_run_prints_the_plan():
    result = tandem("serve", *MODELS, "--dry-run")
    assert result.returncode == 0
    assert "plan" in result.stderr and "pages" in result.stderr
    assert "swap space" not in result.stderr


def test_serve_plans_host_memory_for_pages_that_wait():
    asked = tandem("serve", *MODELS, "--dry-run", "--swap-space", "16MiB")
    assert "swap space 16 MiB of host memory · " in asked.stderr, asked.stderr
    far_too_much = tandem("serve", *MODELS, "--dry-run", "--swap-space", "1000tb")
    assert far_too_much.returncode == 0 and "a quarter of what is free" in far_too_much.stderr
    on_gpu = tandem("serve", *MODELS, *ON_GPU, "8GiB")
    assert "swap space" in on_gpu.stderr and "of host memory" in on_gpu.stderr
    none = tandem("serve", *MODELS, *ON_GPU, "8GiB", "--swap-space", "0")
    assert none.returncode == 0 and "swap space" not in none.stderr
    refused = tandem("serve", *MODELS, "--dry-run", "--swap-space", "much")
    assert refused.returncode == 2 and "--swap-space" in refused.stderr


def test_a_draft_larger_than_its_target_gets_pages_that_hold_it():
    """Swapped by mistake, it started, passed every check and never drafted."""
    swapped = ["--target", DRAFT, "--draft", TARGET]
    plan = tandem("serve", *swapped, "--dry-run")
    assert plan.returncode == 0 and "swapped?" in plan.stderr
    result = tandem("generate", *swapped, "--prompt", "Once upon a time", "--max-tokens", 8,
                    "--speculation", "draft")
    assert result.returncode == 0, result.stderr
    assert "accepted" in result.stderr.strip().splitlines()[-1], result.stderr


HAS_GPU = pathlib.Path("/dev/nvidiactl").exists()
ON_GPU = ["--device", "cuda", "--dry-run", "--vram-budget"]


def test_serve_plans_a_gpu_with_its_contexts():
    result = tandem("serve", *MODELS, *ON_GPU, "8GiB")
    assert result.returncode == 0, result.stderr
    assert "MiB of contexts" in result.stderr and "GiB used" in result.stderr


def test_the_table_of_cards_is_what_serve_plans():
    table = tandem("doctor", "--fit", *MODELS).stdout.splitlines()
    cells = [cell.strip() for cell in table[-1].strip("|").split("|")]
    sizes = [cell.strip() for cell in table[0].strip("|").split("|")]
    tokens = int(cells[sizes.index("8 GB")])
    free = int(8 * 0.92 * 2**20)
    plan = ["serve", *MODELS, "--device", "cuda", "--dry-run", "--vram-budget", f"{free}kb",
            "--kv-tokens"]
    assert tandem(*plan, tokens).returncode == 0
    assert tandem(*plan, int(tokens * 1.02)).returncode == 4
    known = tandem("doctor", "--fit").stdout
    assert "Llama-3.1-8B + Llama-3.2-1B" in known
    large = next(line for line in known.splitlines() if "13B" in line)
    assert " - |" in large and not large.endswith("- |")  # not on 6 GB, but on 24


def test_serve_refuses_what_does_not_fit_a_gpu_and_names_what_does():
    fewer_tokens = tandem("serve", *MODELS, *ON_GPU, "1GiB")
    assert fewer_tokens.returncode == 4
    assert "device memory" in fewer_tokens.stderr and "--kv-tokens" in fewer_tokens.stderr
    tokens = fewer_tokens.stderr.split("--kv-tokens ")[1].split()[0]
    assert tandem("serve", *MODELS, *ON_GPU, "1GiB", "--kv-tokens", tokens).returncode == 0
    without_draft = tandem("serve", *MODELS, *ON_GPU, "600MiB", "--kv-tokens", "2048")
    assert without_draft.returncode == 4 and "--no-draft" in without_draft.stderr
    nothing = tandem("serve", *MODELS, *ON_GPU, "100MiB")
    assert nothing.returncode == 4 and "smaller model" in nothing.stderr


@pytest.mark.skipif(HAS_GPU, reason="this machine has a GPU")
def test_serve_without_a_gpu_says_so_in_one_line():
    result = tandem("serve", *MODELS, "--device", "cuda")
    assert result.returncode == 4
    assert "no NVIDIA driver" in result.stderr and len(result.stderr.splitlines()) == 1


@pytest.mark.parametrize("code,arguments", [
    (2, ["serve", "--no-such-flag"]),
    (2, ["generate"]),
    (2, ["serv"]),
    (2, ["eval", "perplexity", "--model", TARGET, "--file", "/tmp"]),
    (2, ["serve", *MODELS, "--listen", "127.0.0.1:99999", "--metrics-listen", "127.0.0.1:0"]),
    (2, ["serve", *MODELS, "--dry-run", "--listen", "localhost:99999"]),
    (2, ["serve", *MODELS, "--dry-run", "--listen", "0.0.0.0:50051"]),
    (2, ["serve", *MODELS, "--dry-run", "--listen", "0.0.0.0:50051", "--tls-cert", "/nope"]),
    (2, ["serve", *MODELS, "--dry-run", "--metrics-listen", "localhost"]),
    (2, ["serve", *MODELS, "--dry-run", "--listen", "unix:/" + "x" * 107]),
    (2, ["generate", "--endpoint", "bogus", "--prompt", "x"]),
    (2, ["serve", *MODELS, "--dry-run", "--no-draft"]),
    (2, ["serve", *MODELS, "--dry-run", "--nf4"]),
    (2, ["serve", *MODELS, "--dry-run", "--vram-budget", "8GiB"]),
    (2, ["generate", "--endpoint", "127.0.0.1:1", "--target", "/nope", "--prompt", "x"]),
    (2, ["generate", "--prompt", "x", "--speculation", "off", "--draft-length", "4"]),
    (2, ["serve", "--ctx", "-5"]),
    (2, ["doctor", "--port", "77777"]),
    (2, ["generate", "--prompt", "x", "--threads", "-1"]),
    (5, ["serve", *MODELS, "--socket-dir", "/proc/no"]),
    (2, ["eval"]),
    (2, ["serve", *MODELS, "--ctx", "100000"]),
    (2, ["generate", *MODELS, "--prompt", "", "--max-tokens", "1"]),
    (2, ["generate", "--prompt", "x", "--speculation", "magic"]),
    (3, ["serve", "--target", "/nonexistent.gguf"]),
    (3, ["inspect", "/nonexistent.gguf"]),
    (3, ["tokenize", "--model", __file__]),
    (4, ["serve", *MODELS, "--kv-tokens", "2000000000"]),
    (5, ["generate", "--endpoint", "127.0.0.1:1", "--prompt", "x"]),
])
def test_exit_codes(code, arguments):
    result = tandem(*arguments, text_in="")
    assert result.returncode == code, result.stderr
    lines = [line for line in result.stderr.strip().splitlines()
             if not line.startswith(("load ", "plan ", "     "))]
    assert len(lines) == 1 and len(lines[0]) < 400 and lines[0].startswith("tandem: "), result.stderr
    if code == 2 and "--help" in lines[0]:
        assert "no command 'serv'" in lines[0] or f"`tandem {arguments[0]} --help`" in lines[0]


@pytest.mark.parametrize("arguments,message", [
    (["serv"], "there is no command 'serv', did you mean 'serve'?: see `tandem --help`"),
    (["eval", "perplex"], "there is no command 'perplex', did you mean 'perplexity'?"),
    (["quux"], "there is no command 'quux': see"),
    (["serve", "--targt", "x"],
     "there is no option '--targt', did you mean '--target'?: see `tandem serve --help`"),
    (["generate", "--promt=x"], "there is no option '--promt', did you mean '--prompt'?"),
    (["serve", "--port", "5"], "there is no option '--port': see"),
    (["inspect", "a", "b"], "'b' was not expected: see `tandem inspect --help`"),
])
def test_what_is_misspelt_is_named_with_the_nearest(arguments, message):
    result = tandem(*arguments)
    assert result.returncode == 2
    assert message in result.stderr


def test_what_cannot_be_sent_or_written_is_told(server):
    command = [str(BIN / "tandem"), "generate", "--endpoint", server.address, "--max-tokens", "4"]
    for arguments, word in ((["--prompt", b"\xff\xfe"], "prompt is not UTF-8"),
                            (["--chat", "--prompt", b"\xff\xfe"], "message is not UTF-8"),
                            (["--prompt", "x", "--stop", b"\xff"], "--stop is not UTF-8")):
        result = subprocess.run([*command, *arguments], capture_output=True, timeout=60, check=False)
        assert result.returncode == 2
        assert result.stderr.startswith(b"tandem: ") and word.encode() in result.stderr
    too_long = tandem("generate", "--endpoint", server.address, "--prompt", "-",
                      text_in="word " * 400_000)
    assert too_long.returncode == 2 and "at most 1048576" in too_long.stderr
    with open("/dev/full", "w", encoding="utf-8") as full:
        result = subprocess.run([*command, "--prompt", "x"], stdout=full, stderr=subprocess.PIPE,
                                text=True, timeout=60, check=False)
    assert result.returncode == 1 and "No space left" in result.stderr


def test_what_serve_says_to_try_works():
    """Listening on all addresses it named 0.0.0.0, which `generate` took for another machine."""
    command = [str(BIN / "tandem"), "serve", "--target", str(TARGET), "--no-draft", "--listen",
               "0.0.0.0:0", "--insecure", "--metrics-listen", "127.0.0.1:0"]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as server:
        try:
            line = next(line for line in server.stderr if line.startswith("try "))
            words = shlex.split(line)[2:]
            result = tandem(*words, "--max-tokens", 4)
            assert result.returncode == 0, (line, result.stderr)
        finally:
            server.terminate()


def test_a_full_conversation_names_the_way_out(start_server):
    server = start_server("--kv-tokens", "64", draft=None)
    result = tandem("chat", "--endpoint", server.address, "--max-tokens", 8,
                    text_in="word " * 20 + "\n" + "word " * 20 + "\n/reset\nHi\n")
    assert result.stderr.count("/reset begins a new one") == 1, result.stderr
    assert result.stderr.count("first token") == 2, result.stderr


def test_a_server_that_is_gone_is_told_with_what_to_do(start_server):
    server = start_server(draft=None)
    command = [str(BIN / "tandem"), "generate", "--endpoint", server.address, "--prompt", "x",
               "--max-tokens", "4000", "--ignore-eos"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                          text=True) as client:
        assert client.stdout.read(1)
        server.kill_worker("gateway")
        message = client.communicate(timeout=60)[1]
    assert client.returncode == 1 and "the server is gone" in message and "log" in message


def test_the_plan_warns_of_more_threads_than_cores():
    plan = tandem("serve", *MODELS, "--dry-run", "--threads", 256)
    assert plan.returncode == 0
    assert f"256 threads on {os.cpu_count()} cores" in plan.stderr


def test_lines_off_a_terminal_are_json_or_begin_as_documented(start_server):
    """A pipeline that parses the log tells them apart by their beginning."""
    server = start_server("--log-level", "debug")
    server.kill_worker("draft")
    server.wait_log("^ready  draft is back")
    plain = ("plan ", "load ", "ready ", "try ", "lost ", "  ")
    for line in server.log:
        if not line.startswith(plain):
            assert json.loads(line)["level"] in ("debug", "info", "warn", "error"), line
    assert any(line.startswith("{") for line in server.log)


def test_two_servers_do_not_share_a_socket_folder(start_server, tmp_path):
    folder = tmp_path / "sockets"
    start_server("--socket-dir", str(folder))
    second = tandem("serve", *MODELS, "--socket-dir", folder, "--listen", "127.0.0.1:0",
                    "--metrics-listen", "127.0.0.1:0")
    assert second.returncode == 5
    assert str(folder) in second.stderr.strip().splitlines()[-1]


def test_busy_port_is_told(server):
    result = tandem("serve", *MODELS, "--listen", server.address, "--metrics-listen",
                    "127.0.0.1:0")
    assert result.returncode == 5
    assert server.address in result.stderr.strip().splitlines()[-1]
    metrics = server.metrics_url.split("/")[2]
    result = tandem("serve", *MODELS, "--listen", "127.0.0.1:0", "--metrics-listen", metrics)
    assert result.returncode == 5
    assert metrics in result.stderr.strip().splitlines()[-1]
    assert "--metrics-listen" in result.stderr.strip().splitlines()[-1]
