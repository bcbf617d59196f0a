from .facts import DATASETS as DATASETS
from .facts import known_datasets as known_datasets
from .images import TrainImages as TrainImages
from .library import Images as Images
from .library import Library as Library
from .open import open_dataset as open_dataset
from .options import TORCHVISION as TORCHVISION
from .options import DatasetOptions as DatasetOptions
