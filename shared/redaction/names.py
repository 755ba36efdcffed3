"""People and places, found by Presidio.

Optional: needs the extra `presidio` and a spaCy pipeline. The only module that imports either.
"""

from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from shared.errors import Misconfigured
from shared.redaction.pii_match import Finder, PiiKind, PiiMatch
from shared.version import install_command

_KINDS: dict[str, PiiKind] = {"PERSON": "person", "LOCATION": "place"}


def load_name_finder(pipeline: str, language: str) -> Finder:
    """Load a finder of names that uses a spaCy pipeline (package or folder) for a language.

    Raises Misconfigured, which names what to install. Nothing is downloaded.
    """
    if find_spec("presidio_analyzer") is None or find_spec("spacy") is None:
        raise Misconfigured(
            "a model file sets `redaction: {names: true}`, which needs the extra `presidio`; run "
            f"{install_command('presidio')}"
        )
    import spacy.util
    from presidio_analyzer import AnalyzerEngine, RecognizerRegistry
    from presidio_analyzer.nlp_engine import NlpEngineProvider
    from presidio_analyzer.predefined_recognizers import SpacyRecognizer

    if not spacy.util.is_package(pipeline) and not Path(pipeline).is_dir():
        raise Misconfigured(
            f"RATCHET_NAMES_PIPELINE: {pipeline!r} is neither an installed spaCy pipeline nor a "
            f"folder; install it with: python -m spacy download {pipeline}"
        )
    engine = NlpEngineProvider(
        nlp_configuration={
            "nlp_engine_name": "spacy",
            "models": [{"lang_code": language, "model_name": pipeline}],
        }
    ).create_engine()
    registry = RecognizerRegistry(
        recognizers=[SpacyRecognizer(supported_language=language, supported_entities=list(_KINDS))],
        supported_languages=[language],
    )
    return _PresidioFinder(
        AnalyzerEngine(registry=registry, nlp_engine=engine, supported_languages=[language]),
        language,
    )


class _PresidioFinder:
    def __init__(self, engine: Any, language: str) -> None:
        self._engine = engine
        self._language = language

    def __call__(self, text: str) -> Iterator[PiiMatch]:
        end = 0
        results = self._engine.analyze(text=text, language=self._language, entities=list(_KINDS))
        for result in sorted(results, key=lambda result: (result.start, -result.end)):
            if result.start >= end:
                end = result.end
                value = " ".join(text[result.start : end].casefold().split())
                yield PiiMatch(result.start, end, _KINDS[result.entity_type], value)
