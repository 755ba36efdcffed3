"""Building of a dataset: read, extract, filter, balance, split, curate, write; with a report."""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import groupby
from pathlib import Path

from services.dataset.building.balance import balanced, in_turns
from services.dataset.building.candidate import ORIGINS, Candidate, Origin
from services.dataset.building.corpus import Corpus, LeftOutFile, read_corpus
from services.dataset.building.extraction import extract
from services.dataset.building.filters import FILTERS
from services.dataset.building.held_out_documents import held_out_documents
from services.dataset.building.recipe import Recipe
from services.dataset.building.template_expansion import expand
from services.dataset.imports.dataset_draft import DatasetDraft
from services.dataset.imports.import_curation import ImportCuration
from services.dataset.imports.records import InvalidLine
from services.dataset.snapshot.writer import ObjectWriter
from services.dataset.sources.chunking import Chunk
from services.dataset.sources.document import SourceDocument
from services.dataset.sources.folder import find_files
from services.dataset.teacher.teaching import TaughtChunk, TeacherReport
from shared.config.model_file import ModelFile
from shared.events import Artefact, BatchCounts
from shared.events.hyperparameters import Lane
from shared.identity import digest_of, hash_fraction
from shared.storage.snapshots import Example, ImportSource

MAX_CHUNKS, QUICK_CHUNKS = 1_200, 300
MAX_EXAMPLES, QUICK_EXAMPLES = 5_000, 1_000
SAMPLES_PER_ORIGIN = 2
CHARACTERS_PER_TOKEN = 4
LEAST_TAUGHT_CHARACTERS = 80
FORMAT = "format"
"""Reason of an answer in another format than the reward policy requires."""


@dataclass(frozen=True, slots=True)
class BuildRequest:
    """Documents to build a dataset from, for a model's lane. `quick` takes fewer chunks and
    examples.
    """

    documents: Path
    recipe: Recipe = field(default_factory=Recipe)
    quick: bool = False
    lane: Lane = "master"


@dataclass(frozen=True, slots=True)
class BuiltSample:
    """An example for people, after redaction."""

    origin: Origin
    question: str
    answer: str
    source: str | None
    held_out: bool


@dataclass(frozen=True, slots=True)
class BuildReport:
    """Result of a build. `candidates` counts examples by origin before all filters, `filtered` the
    dropped ones by filter, in their order, and `dropped` the ones that curation dropped.
    `training_tokens` is about the number of tokens of one epoch, at four characters each.
    `refused` is the reason why there is no dataset.
    """

    documents: int
    files_left_out: Mapping[str, int]
    left_out_files: Sequence[LeftOutFile]
    places_without_text: int
    first_places: Sequence[LeftOutFile]
    boilerplate_blocks: int
    chunks_found: int
    chunks: int
    candidates: Mapping[Origin, int]
    filtered: Mapping[str, int]
    examples: BatchCounts
    dropped: Mapping[str, int]
    redacted: Mapping[str, int]
    held_out_documents: Sequence[str]
    training_tokens: int
    samples: Sequence[BuiltSample]
    refused: str | None = None
    dataset: str | None = None
    manifest: Artefact | None = None
    teacher: TeacherReport | None = None


Teach = Callable[[Sequence[Chunk]], tuple[Sequence[TaughtChunk], TeacherReport]]
"""Asks a teacher about chunks, the first ones first."""


@dataclass(frozen=True, slots=True)
class _Curated:
    samples: Sequence[BuiltSample]
    training_characters: int


def build_dataset(
    request: BuildRequest,
    model_file: ModelFile,
    curation: ImportCuration,
    store: ObjectWriter,
    read: Callable[[Path], SourceDocument],
    report_progress: Callable[[str], None],
    teach: Teach | None = None,
) -> BuildReport:
    """Build a dataset from documents. The same documents, recipe, model file and replies of the
    teacher always have the same dataset.

    Raises CommandRefused for a folder that cannot be read or changes meanwhile, StorageUnavailable,
    and what `teach` raises.
    """
    most_chunks, most_examples = (
        (QUICK_CHUNKS, QUICK_EXAMPLES) if request.quick else (MAX_CHUNKS, MAX_EXAMPLES)
    )
    corpus = read_corpus(find_files(request.documents), read, most_chunks, report_progress)
    report_progress(f"{corpus.documents:,} documents read, {len(corpus.chunks):,} chunks")
    found = [*expand(request.recipe), *extract(corpus.chunks, request.recipe.questions)]
    teacher: TeacherReport | None = None
    if teach is not None:
        taught, teacher = teach(chunks_in_turns(corpus.chunks))
        found += taught_candidates(taught)
    candidates, filtered = filter_candidates(found, most_examples)
    counts = Counter(each.document for each in candidates if each.document is not None)
    held_out = held_out_documents(counts, model_file.curation.held_out_share)
    with DatasetDraft() as draft:
        curated = _curate(candidates, held_out, request.recipe.system, curation, draft)
        report_progress(f"{draft.members:,} examples, {draft.dropped.total():,} dropped")
        dropped = dict(sorted(draft.dropped.items()))
        draft.dropped.update(filtered)
        refused = _refusal(request.documents, corpus, found, draft, model_file)
        dataset = manifest = None
        if refused is None:
            source = ImportSource(
                digest=digest_of(f"{corpus.digest} {request.recipe.digest}".encode()),
                lines=len(found),
                errors=corpus.unreadable,
                documents=corpus.documents,
            )
            dataset, manifest = draft.write(store, model_file, request.lane, source)
        return BuildReport(
            documents=corpus.documents,
            files_left_out=dict(sorted(corpus.left_out.items())),
            left_out_files=corpus.left_out_files,
            places_without_text=corpus.gaps,
            first_places=corpus.first_gaps,
            boilerplate_blocks=corpus.boilerplate,
            chunks_found=corpus.chunks_found,
            chunks=len(corpus.chunks),
            candidates=_by_origin(found),
            filtered=filtered,
            examples=draft.counts,
            dropped=dropped,
            redacted=dict(sorted(draft.redactions.items())),
            held_out_documents=sorted(held_out),
            training_tokens=curated.training_characters // CHARACTERS_PER_TOKEN,
            samples=curated.samples,
            refused=refused,
            dataset=dataset,
            manifest=manifest,
            teacher=teacher,
        )


def chunks_in_turns(chunks: Iterable[Chunk]) -> list[Chunk]:
    """Return the chunks to ask a teacher about: the first of each document, then the second, and so
    on, without the ones too short to ask about.
    """
    long = (chunk for chunk in chunks if len(chunk.text) >= LEAST_TAUGHT_CHARACTERS)
    documents = [list(group) for _, group in groupby(long, key=lambda chunk: chunk.document)]
    return list(in_turns(documents))


def taught_candidates(taught: Iterable[TaughtChunk]) -> Iterator[Candidate]:
    """Yield the examples of a teacher, in the order of documents and chunks."""
    for each in sorted(taught, key=lambda each: each.chunk.document):
        for example in each.examples:
            chunk = each.chunk
            yield Candidate(
                "taught", example.question, example.answer, chunk.document, chunk.source
            )


def filter_candidates(
    candidates: Sequence[Candidate], most: int
) -> tuple[list[Candidate], dict[str, int]]:
    """Apply the filters and the balance; return what is left, and the number that each dropped, in
    their order.
    """
    filtered: dict[str, int] = {}
    kept = list(candidates)
    for reason, keep in FILTERS:
        left = keep(kept)
        filtered[reason] = len(kept) - len(left)
        kept = left
    left = balanced(kept, most)
    filtered["balance"] = len(kept) - len(left)
    return left, filtered


def _curate(
    candidates: Sequence[Candidate],
    held_out: frozenset[str],
    system: str | None,
    curation: ImportCuration,
    draft: DatasetDraft,
) -> _Curated:
    """Add the curated examples to the draft. The samples are a few of each origin, drawn by their
    IDs.
    """
    characters = 0
    drawn: dict[Origin, list[tuple[float, BuiltSample]]] = {origin: [] for origin in ORIGINS}
    for candidate in candidates:
        side = None if candidate.document is None else candidate.document in held_out
        try:
            # As examples of one line, the wordings of a question are not compared.
            curated = curation.curate(candidate.as_examples(system, is_held_out=side))
        except InvalidLine:
            draft.dropped[FORMAT] += len(candidate.questions)
            continue
        for each in curated:
            draft.add(each)
            if each.example is not None:
                if each.decision == "training":
                    characters += _characters(each.example)
                sample = _sample(candidate.origin, each.example, each.decision == "held_out")
                samples = drawn[candidate.origin]
                samples.append((hash_fraction("sample", each.example.feedback_id), sample))
                samples.sort(key=lambda ranked: ranked[0])
                del samples[SAMPLES_PER_ORIGIN:]
    return _Curated(tuple(sample for origin in ORIGINS for _, sample in drawn[origin]), characters)


def _characters(example: Example) -> int:
    return len(example.answer) + sum(len(message.content) for message in example.messages)


def _sample(origin: Origin, example: Example, held_out: bool) -> BuiltSample:
    return BuiltSample(
        origin, example.messages[-1].content, example.answer, example.source, held_out
    )


def _by_origin(candidates: Sequence[Candidate]) -> dict[Origin, int]:
    counts = Counter(candidate.origin for candidate in candidates)
    return {origin: counts[origin] for origin in ORIGINS if counts[origin]}


def _refusal(
    folder: Path,
    corpus: Corpus,
    found: Sequence[Candidate],
    draft: DatasetDraft,
    model_file: ModelFile,
) -> str | None:
    """Reason why the examples are no dataset, None if they are one."""
    least, training = model_file.curation.smallest_batch, draft.counts.training
    if training >= least:
        return None
    if not found and not corpus.documents:
        return f"no file of {folder} can be read as a document; the files left out have reasons"
    dropped = ", ".join(f"{count} {reason}" for reason, count in draft.dropped.most_common())
    return (
        f"{training} training examples are left of {len(found)} from {corpus.documents} documents "
        f"(dropped: {dropped or 'none'}; held out: {draft.counts.held_out}); a dataset of "
        f"{model_file.model} needs {least} (curation.smallest_batch); add documents, or templates "
        "in a recipe"
    )
