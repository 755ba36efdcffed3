"""Parts of an import that depend on the settings of its process."""

from services.dataset.imports.import_curation import ImportCuration
from services.dataset.ledger.golden_set import GoldenSet
from shared.config.model_file import ModelFile
from shared.config.models import Models
from shared.redaction.names import load_name_finder
from shared.redaction.redactor import Redactor
from shared.redaction.settings import NameRedactionSettings


def redactor_of(model_file: ModelFile, settings: NameRedactionSettings) -> Redactor:
    """Return the redactor of a model file; it loads a pipeline if the file redacts names."""
    find_names = (
        load_name_finder(settings.names_pipeline, settings.names_language)
        if model_file.redaction.names
        else None
    )
    return Redactor(model_file.redaction, find_names)


def curation_of(models: Models, model_file: ModelFile, redactor: Redactor) -> ImportCuration:
    """Return the curation of one file for a model."""
    golden = GoldenSet(
        (example.messages for example in models.golden(model_file.model)),
        model_file.curation.similarity,
    )
    return ImportCuration(model_file, golden, redactor)
