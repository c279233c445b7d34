from pondkeeper.client.client import Client as Client
from pondkeeper.client.pipeline import Pipeline as Pipeline
from pondkeeper.kinds.python.job import JobContext as JobContext
from pondkeeper.kinds.python.job import job as job
from pondkeeper.local.reading import read as read
from pondkeeper.local.reading import version_of as version_of
from pondkeeper.local.writing import write as write

__version__: str
