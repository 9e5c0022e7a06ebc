"""The command line in this process: what it prints, what it leaves on disk, and how it refuses."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from strop.host.cli import run
from strop.host.cli.command import app
from strop.host.reference.mono_forward import MonoForward
from strop.host.zoo import load_model

VERBS = {
    "boards", "list", "doctor", "analyze", "build", "flash", "run", "monitor", "reset", "train", "eval", "validate",
    "profile", "tune", "weights", "export", "demo", "rules", "save", "load", "factory-reset", "report",
}  # fmt: skip
SHARED = ("--board", "-b", "--port", "-p", "--json", "-v", "-q", "--no-progress")


@dataclass
class Answer:
    status: int
    out: str
    err: str

    @property
    def document(self) -> Any:
        """The one JSON document on stdout."""
        return json.loads(self.out)


@pytest.fixture
def strop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Iterator[Any]:
    """Run a command line in an empty folder."""
    monkeypatch.chdir(tmp_path)

    def call(*words: str) -> Answer:
        status = run(words)
        captured = capsys.readouterr()
        return Answer(status, captured.out, captured.err)

    return call


def train(strop: Any, *words: str) -> Any:
    answer = strop("train", "mlp-64-32-10", "--json", "--lr", "0.05", *words)
    assert answer.status == 0, answer.out
    return answer.document


def weights(folder: str) -> dict[str, np.ndarray]:
    with np.load(Path(folder) / "weights.npz") as archive:
        return dict(archive)


def test_help_names_every_verb(strop: Any) -> None:
    answer = strop("--help")
    assert answer.status == 0
    assert {line.split()[1] for line in answer.out.splitlines() if line.startswith("│ ")} >= VERBS


@pytest.mark.parametrize("verb", sorted(VERBS - {"weights"}))
def test_every_verb_has_the_shared_flags(strop: Any, verb: str) -> None:
    words = strop(verb, "--help").out.split()
    assert set(SHARED) <= set(words)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("trian",), "Did you mean 'train'"),
        (("train", "--epoch", "3"), "--epochs"),
        (("train", "--lr", "fast"), "--lr"),
        (("validate",), "MODEL"),
        (("train", "mlp-64-32-10", "--steps"), "--steps"),
    ],
)
def test_usage_errors(strop: Any, words: tuple[str, ...], message: str) -> None:
    answer = strop(*words)
    assert answer.status == 2
    assert message in answer.err
    assert answer.out == ""
    with_json = strop(*words[:1], "--json", *words[1:])
    assert with_json.status == 2
    assert "error" in with_json.document


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("train", "mlp-64-32-1"), "Did you mean 'mlp-64-32-10'"),
        (("train", "digits-cnn", "-b", "qemu-rv32im"), "Did you mean 'qemu-rv32im"),
        (("train", "digits-cnn", "--rule", "tpsdg"), "Did you mean 'tpsgd'"),
        (("train", "digits-cnn", "--optimizer", "adma"), "Did you mean 'adam'"),
        (("train", "digits-cnn", "--data", "digit"), "Did you mean 'digits'"),
        (("train", "digits-cnn", "--loss", "mes"), "Did you mean 'mse'"),
        (("train", "digits-cnn", "--momentum", "0.5"), "--optimizer momentum"),
        (("train", "digits-cnn", "--objective", "l1"), "--objective"),
        (("train", "digits-cnn", "--lr", "-1"), "positive"),
        (("train", "digits-cnn", "--epochs", "0"), "--epochs"),
        (("train", "cnn-28x28"), "8 x 8"),
        (("train",), "no model"),
        (("train", "--resume", "nowhere"), "nowhere"),
        (("train", "digits-cnn", "--weights", "nothing.pt"), "nothing.pt"),
        (("train", "digits-cnn", "--toolchain", "zog"), "Did you mean 'zig'"),
        (("monitor",), "--port"),
        (("monitor", "--port", "/dev/ttyNothing"), "cannot be opened: No such file or directory (/dev/ttyNothing)."),
        (("run", "mlp-64-32-10"), "--board"),
        (("profile", "mlp-64-32-10"), "counts no instructions"),
        (("weights", "pull", "mlp-64-32-10", "--out", "w.txt"), ".npz"),
    ],
)
def test_bad_input_is_one_paragraph_and_leaves_nothing(strop: Any, words: tuple[str, ...], message: str) -> None:
    answer = strop(*words)
    assert answer.status == 1
    (error,) = [line for line in answer.err.splitlines() if not line.startswith(("building ", "starting "))]
    assert error.startswith("error: ")
    assert message in error
    assert "defect" not in error
    with_json = strop(*words, "--json")
    assert with_json.status == 1
    assert with_json.document["error"]["what"]
    if words[0] != "profile":
        assert not list(Path().iterdir())


def test_damaged_weights_are_told_in_a_sentence(strop: Any) -> None:
    end = "is damaged or cut short"
    complaints = {"half.pt": f"holds no weights, or {end}", "half.npz": f"{end}, or no .npz"}
    for name, complaint in complaints.items():
        Path(name).write_bytes(b"PK\x03\x04 and no more")
        answer = strop("eval", "mlp-64-32-10", "--weights", name)
        assert f"error: the file {complaint} ({name}). Give a .npz" in answer.err


def test_a_log_names_stages_now_and_then(strop: Any) -> None:
    lines = strop("analyze", "mlp-64-32-10").err.splitlines()
    assert lines[0] == "building mlp-64-32-10: capture"
    assert len(lines) < 8, "there are seventeen stages, most of them short"


def test_boards(strop: Any) -> None:
    found = {board["name"]: board for board in strop("boards", "--json").document["boards"]}
    assert set(found) >= {"host", "qemu-rv32imf", "qemu-rv32imac", "qemu-cortex-m4f"}
    assert found["qemu-rv32imac"]["isa"] == "rv32imac"
    lines = strop("boards").out.splitlines()
    assert max(map(len, lines)) <= 100


def test_doctor_tells_how_to_get_what_is_missing(strop: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    assert strop("doctor", "--json").document["ok"]
    monkeypatch.setattr("shutil.which", lambda *_, **__: None)
    answer = strop("doctor", "--json")
    assert answer.status == 1
    missing = {check["what"]: check["get"] for check in answer.document["checks"] if not check["ok"]}
    assert missing["qemu-system-riscv32"] == "sudo apt-get install qemu-system-misc"
    assert missing["picotool for pico2-arm, pico2-riscv"].startswith("sudo apt-get install picotool")
    (gcc,) = [what for what in missing if what.startswith("gcc") and "rv32imac" in what]
    assert "rv32v" not in gcc.split(", "), "gcc is not missing where strop has no flags for it"


def test_train_leaves_a_whole_run(strop: Any) -> None:
    result = train(strop, "--epochs", "2")
    folder = Path(result["run"])
    assert result["accuracy"] > 0.85
    weights, pages = {"checkpoint.npz", "weights.npz", "weights.pt"}, {"learning-curve.png", "report.html"}
    assert {file.name for file in folder.iterdir()} == {"log.txt", "report.json", *weights, *pages}
    report = json.loads((folder / "report.json").read_text())
    assert report["status"] == "done"
    assert report["result"] == result
    assert report["versions"]["torch"]
    assert "zig" in report["tools"]["compiler"]
    assert "checkpoint" in (folder / "log.txt").read_text()
    _, module, _ = load_model("mlp-64-32-10")
    module.load_state_dict(torch.load(folder / "weights.pt"))
    again = strop("eval", "mlp-64-32-10", "--weights", str(folder / "weights.pt"), "--json").document
    assert again["accuracy"] == result["accuracy"]


def test_resume_goes_on_to_the_same_bits(strop: Any) -> None:
    options = ("--optimizer", "momentum", "--lr", "0.01", "--checkpoint-every", "70")
    whole = train(strop, *options, "--steps", "300", "--run-dir", "whole")
    train(strop, *options, "--steps", "100", "--run-dir", "part")
    resumed = strop("train", "--resume", "part", "--steps", "300", "--json").document
    assert resumed["steps"] == whole["steps"] == 300
    assert resumed["loss"] == whole["loss"]
    for name, data in weights("whole").items():
        np.testing.assert_array_equal(weights("part")[name], data)
    losses = [np.load(f"{run_}/checkpoint.npz")["losses"] for run_ in ("whole", "part")]
    np.testing.assert_array_equal(*losses)


def test_resume_refuses_another_run(strop: Any) -> None:
    train(strop, "--steps", "50", "--run-dir", "part")
    before = (Path("part") / "report.json").read_text()
    for option, value, what in (("--lr", "0.5", "another model"), ("--seed", "3", "seed"), ("--batch", "2", "batch")):
        answer = strop("train", "--resume", "part", "--steps", "90", option, value)
        assert answer.status == 1
        assert what in answer.err
    assert (Path("part") / "report.json").read_text() == before
    (Path("part") / "checkpoint.npz").write_bytes(b"PK")
    assert "checkpoint.npz" in strop("train", "--resume", "part", "--steps", "90").err


def test_frozen_parameters_keep_their_values(strop: Any) -> None:
    result = train(strop, "--steps", "30", "--freeze", "0.*")
    _, module, _ = load_model("mlp-64-32-10")
    before = {name: tensor.numpy() for name, tensor in module.state_dict().items()}
    after = weights(result["run"])
    for name, value in before.items():
        assert np.array_equal(value, after[name]) == name.startswith("0."), name


def test_user_files(strop: Any) -> None:
    Path("mine.py").write_text(
        "import torch, numpy as np\n"
        "import strop\n"
        "def net(): return torch.nn.Linear(4, 3), torch.zeros(1, 4)\n"
        "def data(): return np.eye(4)[np.arange(40) % 3], np.arange(40) % 3\n"
        "class Mine(strop.rules.Backprop): name = 'mine'\n"
    )
    result = strop("train", "mine.py:net", "--data", "mine.py:data", "--rule", "mine.py:Mine", "--lr", "1", "--json")
    assert result.document["accuracy"] == 1.0


OWN_RULE = """
import numpy as np
import strop
from strop.compiler.ir import Role
from strop.compiler.ops.base import f32
from strop.compiler.rules.base import layerwise

class Mine(strop.rules.Rule):
    name = "mine"

    def cut(self, program):
        return layerwise(program)

    def emit_objective(self, b, block, task):
        shape = (b.values[task.output].shape[1], b.values[block.activity].shape[1])
        head = b.value(f"{block.weight}.head", f32(*shape), Role.STATE, data=np.ones(shape))
        return task.emit(b, b.emit1("dense", (block.activity, head), "answer"), "mine.loss")
"""


def test_a_users_rule_trains_a_head_of_its_own(strop: Any) -> None:
    """And its tensors come back as those of any other."""
    Path("mine.py").write_text(OWN_RULE)
    document = strop("validate", "mlp-64-32-10", "--rule", "mine.py:Mine", "--steps", "20", "--json").document
    assert document["bits_equal"] is True
    assert document["torch"] is None
    result = strop("train", "mlp-64-32-10", "--rule", "mine.py:Mine", "--lr", "0.03", "--epochs", "1", "--json")
    assert result.document["accuracy"] > 0.7


def test_validate_holds_local_heads_against_the_reference(strop: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    arguments = ("validate", "mlp-64-32-10", "--rule", "mono-forward", "--steps", "5", "--json")
    assert strop(*arguments).document["torch"]["max_rel_error"] < 1e-5
    decided = MonoForward.decided
    monkeypatch.setattr(MonoForward, "decided", lambda self, name, ours: decided(self, name, ours) + (".head" in name))
    assert strop(*arguments).document["torch"]["worst_tensor"] == "0.weight.head"


def test_validate_on_this_computer(strop: Any) -> None:
    document = strop("validate", "mlp-64-32-10", "--steps", "30", "--json").document
    assert document["bits_equal"] is True
    assert document["steps"] == 30
    assert document["first_difference"] is None
    assert document["torch"]["max_rel_error"] < 1e-4
    assert document["torch"]["loss_max_rel_error"] < 1e-4


def test_weights_come_and_go(strop: Any) -> None:
    assert strop("weights", "pull", "mlp-64-32-10", "-o", "w.pt", "--json").document["steps"] == 0
    _, module, _ = load_model("mlp-64-32-10")
    module.load_state_dict(torch.load("w.pt"))
    pushed = strop("weights", "push", "mlp-64-32-10", "w.pt", "--json").document
    assert set(pushed["tensors"]) == set(module.state_dict())
    Path("w.pt").write_bytes(Path("w.pt").read_bytes()[:100])
    assert "w.pt" in strop("weights", "push", "mlp-64-32-10", "w.pt").err


def test_build_and_analyze(strop: Any) -> None:
    built = strop("build", "mlp-64-32-10", "-o", "made", "--json").document
    assert set(built["files"]) >= {"strop_model.c", "strop_model.h", "manifest.json", "program.txt", "memory.png"}
    assert {file.name for file in Path("made").iterdir()} == set(built["files"])
    report = strop("analyze", "mlp-64-32-10", "--json").document
    assert report["fits"] is True
    assert report["ram"]["params"] == 9640


def test_logs_are_plain_and_progress_can_be_silenced(strop: Any) -> None:
    loud = strop("train", "mlp-64-32-10", "--steps", "40")
    assert "train  40/40" in loud.err
    assert "\x1b" not in loud.out + loud.err
    for silent in ("--no-progress", "-q"):
        assert strop("train", "mlp-64-32-10", "--steps", "40", silent).err == ""


def test_defects_are_told_as_such(strop: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(_: str) -> None:
        raise RuntimeError("gears")

    monkeypatch.setattr("strop.host.zoo.load_model", broken)
    answer = strop("train", "mlp-64-32-10")
    assert answer.status == 1
    assert "RuntimeError: gears. This is a defect" in answer.err
    assert "Traceback" not in answer.err
    assert "Traceback" in strop("train", "mlp-64-32-10", "-v").err


def test_interrupt(strop: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(_: str) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("strop.host.zoo.load_model", interrupted)
    assert strop("train", "mlp-64-32-10").status == 130
    assert strop("train", "mlp-64-32-10", "--json").document["error"]["kind"] == "Interrupted"


def test_options_are_declared_once() -> None:
    """The same word means the same on every verb."""
    meanings: dict[str, set[str]] = {}
    for command in app.registered_commands:
        for parameter in command.callback.__signature__.parameters.values():  # type: ignore[union-attr]
            if parameter.name != "context":
                meanings.setdefault(parameter.name, set()).add(parameter.annotation.__metadata__[0].help)
    own = {"steps", "out", "model"}
    assert {name for name, found in meanings.items() if len(found) > 1} <= own
