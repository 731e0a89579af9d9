"""SavedSettings: what an extractor asks and how its scores are read, as a file beside its adapter."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

from lightft.errors import DataError, InvalidSettingError
from lightft.llm_ner.confidence import Calibration
from lightft.llm_ner.prompts import Prompt

__all__ = ["FILE_NAME", "SavedSettings"]

FILE_NAME = "extractor.json"


@dataclass(frozen=True)
class SavedSettings:
    """What an adapter's folder remembers of its extractor.

    Attributes:
        prompt: what is asked.
        calibration: what turns scores into probabilities; None if it was never calibrated.
    """

    prompt: Prompt
    calibration: Calibration | None

    def write(self, folder: Path | None) -> Path:
        """Write the file and return it.

        Raises:
            InvalidSettingError: there is no such folder.
        """
        if folder is None or not folder.is_dir():
            raise InvalidSettingError(
                f"{folder} is no folder to save the extractor's settings in. Name the adapter's: save('runs/x/adapter')."
            )
        calibration = None if self.calibration is None else self.calibration.to_json()
        settings = {"question": self.prompt.to_json(), "calibration": calibration}
        path = folder / FILE_NAME
        path.write_text(json.dumps(settings, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
        return path

    @classmethod
    def read(cls, folder: Path | None) -> SavedSettings:
        """Read the file in a folder.

        Raises:
            InvalidSettingError: there is none.
            DataError: it holds something else.
        """
        if folder is None or not (folder / FILE_NAME).is_file():
            raise InvalidSettingError(
                f"No labels are given, and {folder or 'a model that is already open'} has no {FILE_NAME} that names them. "
                "Give labels, such as ['PER', 'LOC'], and call save() once to remember them."
            )
        path = folder / FILE_NAME
        try:
            settings = json.loads(path.read_text(encoding="utf-8"))
            question, calibration = settings["question"], settings["calibration"]
        except (ValueError, KeyError, TypeError) as cause:
            raise DataError(
                f"{path} is not what save() writes: {cause!r}. Delete it, and save the extractor again."
            ) from cause
        return cls(Prompt.from_json(question), None if calibration is None else Calibration.from_json(calibration))
