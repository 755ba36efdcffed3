"""Runs Presidio and detect-secrets on a JSON list of texts on standard input; prints the spans that
each finds, as JSON.

A script for an environment that has both, without Ratchet. Presidio's recognizers for these kinds
need no language model, so its pipeline is an empty one.
"""

import json
import sys
import tempfile
from pathlib import Path
from typing import Any

KINDS = {
    "EMAIL_ADDRESS": "email",
    "PHONE_NUMBER": "phone",
    "CREDIT_CARD": "card",
    "IBAN_CODE": "iban",
    "IP_ADDRESS": "ip",
}
REGIONS = ("US", "GB", "DE", "FR")
Spans = list[list[Any]]


def find_by_presidio(texts: list[str]) -> list[Spans]:
    """Return the spans of each text, for the same regions of telephone numbers as Ratchet's."""
    import spacy
    from presidio_analyzer import AnalyzerEngine, RecognizerRegistry
    from presidio_analyzer.nlp_engine import SpacyNlpEngine
    from presidio_analyzer.predefined_recognizers import PhoneRecognizer

    pipeline = SpacyNlpEngine()
    pipeline.nlp = {"en": spacy.blank("en")}
    registry = RecognizerRegistry()
    registry.load_predefined_recognizers(languages=["en"])
    registry.remove_recognizer("PhoneRecognizer")
    registry.add_recognizer(PhoneRecognizer(supported_regions=REGIONS))
    engine = AnalyzerEngine(registry=registry, nlp_engine=pipeline)
    return [
        [
            [found.start, found.end, KINDS[found.entity_type]]
            for found in engine.analyze(text=text, language="en", entities=list(KINDS))
        ]
        for text in texts
    ]


def find_by_detect_secrets(texts: list[str]) -> list[Spans]:
    """Return the spans of each text, by the plugins that are on by default."""
    from detect_secrets import SecretsCollection
    from detect_secrets.settings import default_settings

    result = []
    with tempfile.TemporaryDirectory() as folder, default_settings():
        path = Path(folder) / "text.txt"
        for text in texts:
            path.write_text(text, encoding="utf-8")
            secrets = SecretsCollection()
            secrets.scan_file(str(path))
            values = {secret.secret_value for _, secret in secrets}
            result.append(
                [
                    [start, start + len(value), "secret"]
                    for value in values
                    if value and (start := text.find(value)) >= 0
                ]
            )
    return result


if __name__ == "__main__":
    read = json.load(sys.stdin)
    json.dump(
        {"presidio": find_by_presidio(read), "detect_secrets": find_by_detect_secrets(read)},
        sys.stdout,
    )
