"""The task of docs/first-model.md: dates in prose to ISO dates, with three colleagues who correct
the answers of a running `ratchet up`. `python examples/dates.py --help` lists the options.

Asks the served model questions until `--questions` are answered; a judge compares each answer with
the date of the question, and the feedback of Ada, Bob and Cem follows from it. `--unseen` asks
questions that never get feedback, and prints the share of exact answers.
"""

import argparse
import datetime
import os
import random
from collections.abc import Iterator
from dataclasses import dataclass

from openai import OpenAI

from ratchet_client import Client, capture

INSTRUCTION = "Answer with the date in the message, as YYYY-MM-DD."
COLLEAGUES = ("ada", "bob", "cem")
FORMS = (
    "the {ordinal} of {month} {year}",
    "{day} {month} {year}",
    "{month} {day}, {year}",
    "{month} the {ordinal}, {year}",
    "{short}. {ordinal}, {year}",
)
SENTENCES = (
    "The {thing} arrived on {date}.",
    "Please send the {thing} back by {date}.",
    "We paid for the {thing} on {date}, I think.",
    "On {date} the {thing} broke.",
    "Is {date} possible for the {thing}?",
    "The warranty of the {thing} ends on {date}.",
)
THINGS = ("kettle", "contract", "boiler", "tent", "lease", "printer", "bicycle", "order", "visa")


@dataclass(frozen=True)
class Question:
    """A message with one date, and the date as it should be answered."""

    text: str
    answer: str

    def is_answered_by(self, answer: str) -> bool:
        """Judge an answer: right is the ISO date and nothing else."""
        return answer.strip() == self.answer


def questions(stream: str) -> Iterator[Question]:
    """Yield distinct questions without end; the same stream has the same questions."""
    choose = random.Random(stream)
    seen = set[str]()
    while True:
        date = datetime.date(1980, 1, 1) + datetime.timedelta(days=choose.randrange(60 * 365))
        in_prose = choose.choice(FORMS).format(
            day=date.day,
            ordinal=f"{date.day}{_ending(date.day)}",
            month=f"{date:%B}",
            short=f"{date:%b}",
            year=date.year,
        )
        text = choose.choice(SENTENCES).format(thing=choose.choice(THINGS), date=in_prose)
        if text not in seen:
            seen.add(text)
            yield Question(text, date.isoformat())


def _ending(day: int) -> str:
    return "th" if day in (11, 12, 13) else {1: "st", 2: "nd", 3: "rd"}.get(day % 10, "th")


def main() -> None:
    arguments = argparse.ArgumentParser(description="Ask about dates, and correct the answers.")
    arguments.add_argument("--questions", type=int, help="number of questions (60; 40 unseen)")
    arguments.add_argument("--stream", default="1", help="another stream has other questions")
    arguments.add_argument("--unseen", action="store_true", help="send no feedback")
    chosen = arguments.parse_args()
    server = os.environ.get("RATCHET_SERVING", "http://127.0.0.1:8081")
    broker = os.environ.get("RATCHET_BOOTSTRAP_SERVERS", "127.0.0.1:9092")
    count = chosen.questions or (40 if chosen.unseen else 60)
    stream = questions(f"unseen {chosen.stream}" if chosen.unseen else chosen.stream)
    with Client(bootstrap_servers=broker) as ratchet:
        openai = capture(OpenAI(base_url=f"{server}/v1", api_key="none"), ratchet)
        exact = 0
        for number in range(count):
            question = next(stream)
            completion = openai.chat.completions.create(
                model="dates",
                messages=[
                    {"role": "system", "content": INSTRUCTION},
                    {"role": "user", "content": question.text},
                ],
                temperature=0,
                max_tokens=24,
            )
            right = question.is_answered_by(completion.choices[0].message.content or "")
            exact += right
            if not chosen.unseen:
                response_id = completion.ratchet_response_id  # type: ignore[attr-defined]  # by capture
                ratchet.record_feedback(
                    response_id=response_id,
                    user_id=COLLEAGUES[number % len(COLLEAGUES)],
                    feedback_type="thumbs_up" if right else "correction",
                    corrected_output=None if right else question.answer,
                )
        print(f"{completion.model}: {exact} of {count} exact")


if __name__ == "__main__":
    main()
