from pondkeeper.client.client import Client as Client
from pondkeeper.client.pipeline import Pipeline as Pipeline
from pondkeeper.local.reading import read as read
from pondkeeper.local.writing import write as write

__version__: str
