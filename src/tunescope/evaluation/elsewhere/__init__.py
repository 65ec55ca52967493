"""What tuning cost elsewhere: the trunk's language model on general text, and other data sets."""

from __future__ import annotations

from tunescope.evaluation.elsewhere.crossing import CrossData, cross_evaluate, load_cross_data
from tunescope.evaluation.elsewhere.documents import Documents, encode_documents, read_documents
from tunescope.evaluation.elsewhere.heads import LanguageHead, language_head
from tunescope.evaluation.elsewhere.language import DocumentLoss, document_loss, language_costs

__all__ = [
    "CrossData",
    "DocumentLoss",
    "Documents",
    "LanguageHead",
    "cross_evaluate",
    "document_loss",
    "encode_documents",
    "language_costs",
    "language_head",
    "load_cross_data",
    "read_documents",
]
