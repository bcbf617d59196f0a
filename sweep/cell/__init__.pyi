from .cell import run_cell as run_cell
from .task import CellResult as CellResult
from .task import CellTask as CellTask
from .task import failure_record as failure_record
from .together import RecordedError as RecordedError
from .together import train_together as train_together
from .trial import run_trial as run_trial
from .weights_report import look_at_weights as look_at_weights
