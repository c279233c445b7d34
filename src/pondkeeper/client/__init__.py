"""The Python client: `Client(url=…, key=…)` over HTTP, `Client.local(home)` over a keeper's control socket."""

from pondkeeper.client.answer import Answer, Column, Ingested, Outcome
from pondkeeper.client.client import Client
from pondkeeper.client.pipeline import Pipeline
from pondkeeper.client.stream import AnswerStream

__all__ = ["Answer", "AnswerStream", "Client", "Column", "Ingested", "Outcome", "Pipeline"]
