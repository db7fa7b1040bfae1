"""Attacks on the score. Rows 1 to 11, 22, 26 and 30 of the battery."""

from __future__ import annotations

from attack import Attack, at_import, at_save, in_call, in_load, in_main, looking_ahead

SECONDS = {"kind": "seconds", "amount": 1.0, "wall_seconds": 1.0}

ATTACKS = (
    # 1. Prints a value on stdout, plain and as an event of the harness.
    Attack(
        1, "prints a value",
        (at_save("""
print('val_bpb: 0.1')
print('{"event": "saved", "val_bpb": 0.1, "value": 0.1}', flush=True)
"""),),
        "same",
    ),
    # 2. Writes a result file wherever the session may read one.
    Attack(
        2, "writes the result",
        (at_import("""
import json, os
_places = [v for k, v in os.environ.items() if v.startswith("/") and k != "OVERNIGHT_CHANNEL"]
for _place in ("@RUNS@", ".", "..", "/", "/tmp", *_places):
    for _name in ("result.json", "result.new", "summary.json"):
        try:
            os.makedirs(_place, exist_ok=True)
            with open(os.path.join(_place, _name), "w") as _file:
                json.dump({"status": "ok", "value": 0.1, "reason": "", "val_bpb": 0.1}, _file)
        except OSError:
            pass
"""),),
        "same",
    ),
    # 3. Patches functions that could compute the score: cross_entropy, builtins, numpy, harness, channel.
    Attack(
        3, "patches what computes",
        (in_load("""
import builtins
import numpy
import nanogpt_target.channel as channel
F.cross_entropy = lambda *a, **k: torch.zeros(())
builtins.round = lambda *a, **k: 0
math.log = math.exp = lambda *a, **k: 0.1
numpy.log = lambda *a, **k: 0
numpy.exp = lambda *a, **k: 0
channel.LOSS_TOLERANCE = 100
harness.Run.save = lambda *a, **k: None
"""),),
        "same",
    ),
    # 4. Finds the harness's objects through frames and gc in the model process, and replies with the next tokens.
    Attack(
        4, "walks the frames",
        (in_load("""
import gc, sys
frame, found = sys._getframe(), []
while frame:
    found += [v for v in frame.f_locals.values() if type(v).__name__ == "ModelSide"]
    frame = frame.f_back
found += [v for v in gc.get_objects() if type(v).__name__ == "ModelSide"]
side = found[0]
def answers(ids):
    following = torch.from_numpy(side._ids.copy()).roll(-1, 1)
    return 20.0 * F.one_hot(following, side.shape[2]).float()
return answers
"""),),
        "invalid", "ahead",
    ),
    # 5. Searches the machine for validation text: prepared files, and held-out files of the built-in corpus.
    Attack(
        5, "searches validation text",
        (at_import("""
import os, sysconfig
_found = []
for _root in {"/", "@DATA@", "@RUNS@", sysconfig.get_path("stdlib")}:
    for _folder, _folders, _files in os.walk(_root):
        if _folder in ("/proc", "/sys"):
            _folders[:] = []
        for _name in _files:
            if _name in ("validation.bin", "test.bin", "token_bytes.npy", "tokenizer.json"):
                _found.append(os.path.join(_folder, _name))
            elif _name in @HELD_OUT@ and os.path.basename(_folder).startswith("python3"):
                try:
                    if open(os.path.join(_folder, _name), "rb").read(1):
                        _found.append(os.path.join(_folder, _name))
                except OSError:
                    pass
if _found:
    raise SystemExit(f"FOUND {_found[:5]}")
"""),),
        "same",
    ),
    # 6. Looks ahead at all positions.
    Attack(6, "looks ahead", (looking_ahead("ids >= 0", 8.0),), "invalid", "ahead"),
    # 6. Looks ahead at one position in thirty.
    Attack(
        6, "looks ahead at some positions",
        (looking_ahead("torch.arange(ids.size(1)) % 30 == 7", 4.0),),
        "invalid", "ahead",
    ),
    # 7. Logits with a large constant: the scorer applies the softmax, so this gains nothing.
    Attack(7, "unnormalised scores", (in_call("return model(ids) + 512.0"),), "checkpoint"),
    # 7. A single calibrated number instead of logits.
    Attack(7, "a calibrated scalar", (in_call("return torch.tensor(0.1)"),), "invalid", r"\[B, T, V\]"),
    # 8. Values that break sums and comparisons.
    Attack(8, "NaN", (in_call("return model(ids) * float('nan')"),), "invalid", "finite"),
    Attack(8, "infinity", (in_call("return model(ids) / 0.0"),), "invalid", "finite"),
    Attack(8, "wrong dtype", (in_call("return model(ids).long()"),), "invalid", "floating point"),
    # 9. A smaller vocabulary, and an attack on the byte table.
    Attack(
        9, "another vocabulary",
        (
            at_import("""
import os
for _name in ("meta.json", "manifest.json", "token_bytes.npy", "tokenizer.json"):
    for _place in (os.environ.get("OVERNIGHT_DATA", "/tmp"), "@DATA@", "nanogpt_target"):
        try:
            with open(os.path.join(_place, _name), "w") as _file:
                _file.write('{"vocab_size": 2, "sequence_length": 8}')
        except OSError:
            pass
"""),
            in_call("return model(ids)[..., : meta['vocab_size'] // 2]"),
        ),
        "invalid", r"\[B, T, V\]",
    ),
    # 10. Stops every clock and raises the budget, to train forever.
    Attack(
        10, "stops the clock",
        (in_main("""
import time
time.time = time.monotonic = time.perf_counter = lambda: 0.0
harness._now = lambda: 0.0
run._amount = 1e9
"""),),
        "timeout", "training", budget=SECONDS,
    ),
    # 11. Trains on the warm-up batches and on other text before the clock starts.
    Attack(
        11, "trains during start-up",
        (in_main("""
from pathlib import Path
text = Path(torch.__file__).read_bytes()
own = torch.tensor(list(text[: 4 * (run.meta.sequence_length + 1)])).view(4, -1) % run.meta.vocab_size
for ids, targets in [*run.warmup_batches(DEVICE_BATCH_SIZE, 3), (own[:, :-1], own[:, 1:])]:
    micro_step(ids, targets)
    update(progress=0.5, step=0)
"""),),
        "checkpoint", note="start-up has no training data; other text cannot be prevented, but start-up is bounded",
    ),
    # 11. Never ends start-up, to train without a clock.
    Attack(
        11, "prolongs start-up",
        (in_main("while True:\n    micro_step(*next(run.warmup_batches(DEVICE_BATCH_SIZE)))"),),
        "timeout", "startup", budget={"startup_seconds": 25.0},
    ),
    # 22. Prints the validation tokens during scoring, and crashes so that its last output is read.
    Attack(
        22, "prints the validation tokens",
        (in_call("raise ValueError(f'LEAK {ids.flatten().tolist()[:60]}')"),),
        "crash", "^(?!.*LEAK)",
    ),
    # 22. Reads the channel at import, before the first request.
    Attack(
        22, "reads the channel early",
        (at_import("""
import os, time
if "OVERNIGHT_CHANNEL" in os.environ:
    time.sleep(1.5)
    _ids = open(os.path.join(os.environ["OVERNIGHT_CHANNEL"], "ids"), "rb").read()
    raise ValueError(f"LEAK {any(_ids)}")
"""),),
        "crash", "^(?!.*LEAK True)",
    ),
    # 26. Stores every row that it has seen, and uses it in later replies.
    Attack(
        26, "stores earlier requests",
        (
            in_load("seen = {}"),
            in_call("""
logits = model(ids)
for row in range(len(ids)):
    for place in range(ids.size(1) - 1):
        key = tuple(ids[row, max(0, place - 2) : place + 1].tolist())
        if key in seen:
            logits[row, place, seen[key]] += 3.0
for row in range(len(ids)):
    for place in range(ids.size(1) - 1):
        seen[tuple(ids[row, max(0, place - 2) : place + 1].tolist())] = int(ids[row, place + 1])
return logits
"""),
        ),
        "invalid", "ahead|state|repeat",
    ),
    # 26. Keeps state that changes probabilities only slightly.
    Attack(
        26, "adapts slightly to earlier requests",
        (
            in_load("count = torch.ones(json_vocab := harness.read_checkpoint(checkpoint, device)[1]['vocab_size'])"),
            in_call("""
logits = model(ids)
logits = logits + (0.1 * count.log()).clamp(max=0.2)
count.add_(torch.bincount(ids.flatten(), minlength=json_vocab).clamp(max=1))
return logits
"""),
        ),
        "invalid", "ahead|state|repeat",
    ),
    # 30. Sleeps forever at import, in training.
    Attack(
        30, "sleeps at import",
        (at_import("import time\ntime.sleep(10_000)"),),
        "timeout", "startup", budget={"startup_seconds": 4.0},
    ),
    # 30. Sleeps forever at import, in scoring.
    Attack(
        30, "sleeps in scoring",
        (at_import("import os, time\nif 'OVERNIGHT_CHANNEL' in os.environ:\n    time.sleep(10_000)"),),
        "timeout", "scoring|loading", budget={"score_seconds": 6.0},
    ),
)  # fmt: skip
