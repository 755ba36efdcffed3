"""Near-duplicates, contamination and corrections in the ledger."""

from collections import Counter
from itertools import product
from typing import Any

import pytest

from services.dataset.ledger.cached_entry import CachedEntry
from services.dataset.ledger.golden_set import GoldenSet
from services.dataset.ledger.recovery import repair_entries
from shared.events import Artefact, Message
from shared.identity import prompt_identity
from shared.storage.dataset_entries import DatasetEntry
from shared.storage.snapshots import BatchManifest
from tests.dataset.ledger.similarity.labelled_pairs import passages
from tests.support.scored_feedback import SimulatedShard, model_file, scored, withdrawal, words

VERBS = ("repair", "return", "clean", "carry", "store", "insure")
NOUNS = ("lamp", "sofa", "tent", "piano", "kettle", "ladder", "carpet", "mirror", "bench", "clock")
QUESTIONS = [f"How do I {verb} the {noun}?" for verb, noun in product(VERBS, NOUNS)]
OLD_SIGNATURE = "AAAA" * 171


def decide_all(inputs: list[Any], held_out_share: float, golden: GoldenSet | None = None) -> Any:
    """Reasons of the decisions about one thumb up for each input, with different answers."""
    shard = SimulatedShard(model_file(held_out_share=held_out_share), golden)
    for offset, prompt in enumerate(inputs):
        question = QUESTIONS[offset % len(QUESTIONS)]
        answer = f"Ask the shop around the corner: {question}"
        shard.decide(scored(f"e{offset}", input=prompt, output=answer), offset)
        if offset == len(inputs) // 2:
            shard.restart()
    return Counter(entry.reason for entry in shard.entries.values())


@pytest.mark.parametrize("held_out_share", [0.0, 0.5])
@pytest.mark.parametrize("passage", ["template", "fewshot", "handbook", "leaflet"])
@pytest.mark.parametrize("question_first", [False, True])
def test_shared_instructions_drop_nothing(
    held_out_share: float, passage: str, question_first: bool
) -> None:
    shared = passages()[passage]
    inputs = [
        f"{question}\n\n{shared}" if question_first else f"{shared}\n\n{question}"
        for question in QUESTIONS
    ]
    reasons = decide_all(inputs, held_out_share)
    assert sum(reasons.values()) == 60
    assert reasons.keys() <= {"approved", "held_out"}


def test_a_template_of_several_golden_prompts_drops_nothing() -> None:
    template = passages()["template"]
    golden = GoldenSet(
        (Message(role="user", content=f"{template}\n\nMay I keep a {animal} in my flat?"),)
        for animal in ("parrot", "snake", "goat")
    )
    inputs = [f"{template}\n\n{question}" for question in QUESTIONS]
    assert decide_all(inputs, 0.0, golden) == {"approved": 60}


def test_every_turn_of_a_long_chat_is_kept() -> None:
    turns = [
        (
            Message(role="user", content=question),
            Message(role="assistant", content=f"Ask the shop around the corner: {question}"),
        )
        for question in QUESTIONS[:40]
    ]
    history: list[Message] = []
    inputs = []
    for user, assistant in turns:
        inputs.append([*history, user])
        history += [user, assistant]
    assert decide_all(inputs, 0.0) == {"approved": 40}


def test_a_long_shared_system_prompt_drops_nothing() -> None:
    system = Message(role="system", content=words("house rules", 800))
    inputs = [[system, Message(role="user", content=question)] for question in QUESTIONS]
    assert decide_all(inputs, 0.0) == {"approved": 60}


CORRECTIONS = [
    ("def f(a, b):\n    return a - b", "def f(a, b):\n    return a + b"),
    ("return True", "return true"),
    ("if x:\n    f()\n    g()", "if x:\n    f()\ng()"),
    ("It weighs 1.5 kg.", "It weighs 1,5 kg."),
    ("👍", "👎"),
    ("Use C++ for that.", "Use C# for that."),
    ("दुकान खुली है।", "दुकान बंद है।"),
    ("ร้านเปิด", "ร้านปิด"),
    ("the shop is open", "The shop is open."),
    (f"{'We deliver to every island of the lake. ' * 17}It takes 3 days.", ""),
]


@pytest.mark.parametrize(("wrong", "right"), CORRECTIONS)
@pytest.mark.parametrize("held_out_share", [0.0, 0.999])
def test_correction_replaces_the_answer_it_corrects(
    wrong: str, right: str, held_out_share: float
) -> None:
    right = right or wrong.replace("3", "4")
    shard = SimulatedShard(model_file(held_out_share=held_out_share))
    prompt = "How does it work?"
    shard.decide(scored("like", input=prompt, output=wrong, user_id="ann"), 0)
    shard.restart()
    correction = scored(
        "fix", "correction", input=prompt, output=wrong, corrected_output=right, user_id="bob"
    )
    shard.decide(correction, 1)
    fix, like = (shard.entries[f"support#0|{name}"] for name in ("fix", "like"))
    assert (like.decision, like.reason, like.revoked) == ("dropped", "superseded", 1)
    assert fix.is_waiting
    assert (fix.corrects, fix.example and fix.example.answer) == (("like",), right)
    assert shard.pending == (held_out_share == 0.0)


@pytest.mark.parametrize(
    ("prompt", "output"),
    [("how does  it work?\n", "return a - b"), ("How does it work?", "return a - b\n")],
)
def test_correction_finds_its_answer_in_another_spelling(prompt: str, output: str) -> None:
    shard = SimulatedShard(model_file(held_out_share=0.0))
    liked = {"input": "How does it work?", "output": "return a - b", "user_id": "ann"}
    shard.decide(scored("like", **liked), 0)
    fix = {"input": prompt, "output": output, "corrected_output": "return a + b"}
    shard.decide(scored("fix", "correction", **fix, user_id="bob"), 1)
    assert shard.entries["support#0|like"].reason == "superseded"
    assert shard.entries["support#0|fix"].corrects == ("like",)


def test_correction_of_another_answer_replaces_nothing() -> None:
    shard = SimulatedShard(model_file(held_out_share=0.0))
    prompt = "How does it work?"
    shard.decide(scored("like", input=prompt, output="return a - b"), 0)
    fix = {"input": prompt, "output": "  return a - b", "corrected_output": "return a + b"}
    shard.decide(scored("fix", "correction", **fix), 1)
    assert shard.entries["support#0|like"].is_waiting


def test_correction_of_a_trained_answer_is_trained_on() -> None:
    shard = SimulatedShard(model_file(batch_size=2, held_out_share=0.0))
    prompt = "How does it work?"
    shard.decide(scored("like", input=prompt, output="return True"), 0)
    shard.decide(scored("other"), 1)
    assert shard.training_members(0) == ["like", "other"]
    fix = {"input": prompt, "output": "return True", "corrected_output": "return true"}
    decided = shard.decide(scored("fix", "correction", **fix), 2).entry
    assert decided is not None
    assert (decided.decision, decided.corrects) == ("training", None)


def test_pasted_correction_counts_once_with_a_typo_too() -> None:
    shard = SimulatedShard(model_file(held_out_share=0.0))
    prompt = "Where do I find the museum?"
    for offset, street in enumerate(["behind the old station", "behind the old staton"] * 2):
        fix = {"input": prompt, "output": "No idea.", "corrected_output": f"It is {street}."}
        shard.decide(scored(f"e{offset}", "correction", **fix, user_id=f"user{offset}"), offset)
    assert shard.pending == 1


def test_correction_of_a_correction_wins() -> None:
    shard = SimulatedShard(model_file(held_out_share=0.0))
    prompt = "Where do I find the museum?"
    for offset, (wrong, right) in enumerate(
        [("No idea.", "behind the staton"), ("behind the staton", "Behind the station.")]
    ):
        fix = {"input": prompt, "output": wrong, "corrected_output": right}
        shard.decide(scored(f"e{offset}", "correction", **fix, user_id=f"user{offset}"), offset)
    assert [entry.reason for entry in shard.entries.values()] == ["superseded", "correction"]


def test_crash_after_the_correction_is_completed() -> None:
    """The entry of the correction is stored, that of the corrected answer is the one before."""
    shard = SimulatedShard(model_file(held_out_share=0.0))
    prompt = "How does it work?"
    shard.decide(scored("like", input=prompt, output="return a"), 0)
    before = shard.entries["support#0|like"]
    fix = {"input": prompt, "output": "return a", "corrected_output": "return b"}
    shard.decide(scored("fix", "correction", **fix), 1)
    after = shard.entries["support#0|like"]
    shard.entries[before.key] = before

    def read(manifest: Artefact) -> BatchManifest:
        raise AssertionError(manifest)

    assert repair_entries(shard.state, read) == [after]


def test_waiting_entry_of_an_earlier_version_is_compared() -> None:
    """Earlier versions stored a MinHash signature where the texts are stored now."""
    shard = SimulatedShard(model_file(batch_size=3, held_out_share=0.0))
    same = {"input": "How does it work?", "output": "Press the round button."}
    shard.decide(scored("old", **same), 0)
    current = shard.entries["support#0|old"]
    stored = current.model_copy(update={"text": OLD_SIGNATURE, "prompt": OLD_SIGNATURE})
    shard.entries[current.key] = DatasetEntry.model_validate_json(stored.encode())
    shard.restart()
    decided = shard.decide(scored("again", **same), 1).entry
    assert decided is not None
    assert decided.reason == "near_duplicate"
    for offset in (2, 3):
        shard.decide(scored(f"e{offset}"), offset)
    member = shard.entries[current.key]
    assert (member.text, member.prompt) == (current.text, current.prompt)


def test_member_of_an_earlier_version_is_read_and_not_compared() -> None:
    shard = SimulatedShard(model_file(batch_size=2, held_out_share=0.0))
    same = {"input": "How does it work?", "output": "Press the round button."}
    shard.decide(scored("old", **same), 0)
    shard.decide(scored("other"), 1)
    member = shard.entries["support#0|old"]
    stored = member.model_copy(update={"text": OLD_SIGNATURE, "prompt": OLD_SIGNATURE})
    shard.entries[member.key] = stored
    shard.restart()
    decided = shard.decide(scored("again", **same), 2).entry
    assert decided is not None
    assert decided.reason == "approved"
    assert CachedEntry.of(stored).entry == stored


def test_similar_prompts_stay_on_one_side() -> None:
    """The sides of two spellings of a prompt differ by their hashes, but only one is used."""
    spellings = [f"Where is my {'parcel'}{'?' * number}" for number in range(20)]
    assert len({prompt_identity([Message(role="user", content=text)]) for text in spellings}) == 20
    reasons = decide_all(spellings, 0.5)
    assert len(reasons.keys() & {"approved", "held_out"}) == 1
    assert reasons["contaminated"] > 0


def test_withdrawal_removes_the_texts_and_stops_comparing() -> None:
    """Of a waiting example, of one in a batch, and of a held-out one."""
    shard = SimulatedShard(model_file(batch_size=2, held_out_share=0.3))
    for offset in range(12):
        shard.decide(scored(f"e{offset}", user_id="ann" if offset % 2 else None), offset)
    before = [entry for entry in shard.entries.values() if entry.influence == "user:ann"]
    assert {(entry.decision, entry.is_waiting) for entry in before} >= {
        ("training", False),
        ("held_out", False),
    }
    assert all(entry.text and entry.prompt for entry in before)
    shard.withdraw(withdrawal("w", "ann"), 12)
    after = [shard.entries[entry.key] for entry in before]
    assert all((entry.text, entry.prompt, entry.example) == (None, None, None) for entry in after)
    stored = b"".join(shard.cached.values())
    for number in range(1, 12, 2):
        assert words(f"answer e{number}").encode() not in stored
        assert words(f"prompt e{number}").encode() not in stored
    again = shard.decide(
        scored("again", input=words("prompt e1"), output=words("answer e1")), 13
    ).entry
    assert again is not None
    assert again.reason in ("approved", "held_out")
