"""Durable storage: after a kill, a full disk or a flipped bit, the last sound commit still loads.

Everything that is read back contains its own digest: single files by `seals`, lines by `journal`,
states by `checkpoints`.
"""

from metaloss.storage.checkpoints import Checkpoint as Checkpoint
from metaloss.storage.checkpoints import Checkpoints as Checkpoints
from metaloss.storage.checkpoints import commit as commit
from metaloss.storage.checkpoints import recover as recover
from metaloss.storage.creation import new_folder as new_folder
from metaloss.storage.disk import exists as exists
from metaloss.storage.disk import is_file as is_file
from metaloss.storage.disk import subfolders as subfolders
from metaloss.storage.disk import write as write
from metaloss.storage.journal import History as History
from metaloss.storage.lock import Lock as Lock
from metaloss.storage.seals import REMAKE as REMAKE
from metaloss.storage.seals import RESTORE_COPY as RESTORE_COPY
from metaloss.storage.seals import check_file as check_file
from metaloss.storage.seals import is_sealed as is_sealed
from metaloss.storage.seals import json_bytes as json_bytes
from metaloss.storage.seals import json_safe as json_safe
from metaloss.storage.seals import read_record as read_record
from metaloss.storage.seals import read_tensors as read_tensors
from metaloss.storage.seals import read_toml as read_toml
from metaloss.storage.seals import record_bytes as record_bytes
from metaloss.storage.seals import seal_file as seal_file
from metaloss.storage.seals import sha256 as sha256
from metaloss.storage.seals import toml_bytes as toml_bytes
from metaloss.storage.seals import typed_table as typed_table
from metaloss.storage.seals import write_record as write_record
from metaloss.storage.seals import write_tensors as write_tensors
from metaloss.storage.seals import write_toml as write_toml
