"""Measuring process: the inputs of a comparison (`python -m app.measure.children.inputs`).

Nothing is timed here. Models with different interfaces are refused before anything is measured.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from app.inference.datatypes import BYTES, is_finite
from app.measure.inputs.arrays import Array, InputArrays
from app.measure.inputs.fitting import fit_arrays
from app.measure.inputs.generated import Failed, GeneratedInputs, NoInputs, find_inputs
from app.measure.inputs.interface import common_interface
from app.measure.inputs.uploaded import load_uploaded
from app.measure.timed_session import TimedSession
from app.measure.timing import Refused, run_job
from app.models.samples import SamplesError, read_column_samples, read_samples

GENERATED_ROWS = 8, 64  # at least, so that the outputs of more than one are compared, and at most


def main() -> None:
    """Receive a job, select the inputs, and send their description."""
    run_job(lambda job: InputSelection(job).select())


class InputSelection:
    """Finds inputs that all models of a job take: uploaded arrays, samples of a model, or generated arrays.

    Args:
        job: the models, batch sizes and uploaded file.

    Raises:
        Refused: a model cannot be loaded, or the interfaces differ.
    """

    def __init__(self, job: Mapping[str, Any]) -> None:
        self._job = job
        self._sessions = [
            TimedSession(model["name"], model["path"], device=job["device"], threads=job["threads"])
            for model in job["models"]
        ]
        names = [session.name for session in self._sessions]
        try:
            self._interface = common_interface(names, [session.interface for session in self._sessions])
        except ValueError as error:
            raise Refused(str(error)) from None

    def select(self) -> dict[str, Any]:
        """Write the inputs into the job's folder.

        Returns:
            The source of the inputs and its name, the number of rows, the batch sizes to measure, and remarks.

        Raises:
            Refused: the uploaded arrays do not fit, or a model fails on the inputs at every batch size.
        """
        sizes, notes = self._sizes()
        labels: Array | None = None
        if self._job["uploaded"] is not None:
            source, name = "uploaded", self._job["uploaded"]["name"]
            inputs, labels = self._read_uploaded()
        elif (found := self._read_samples()) is not None:
            source, (inputs, labels, name) = "samples", found
        else:
            generated = self._generate(sizes)
            source, name = "generated", self._description(generated)
            fewest, most = GENERATED_ROWS
            inputs = generated.arrays(max(fewest, min(most, max(sizes))))
        failures = self._failures(inputs, sizes)
        if len(failures) == len(sizes):
            raise Refused(next(iter(failures.values())))
        inputs.save(Path(self._job["inputs"]), labels)
        return {
            "source": source,
            "name": name,
            "rows": inputs.rows,
            "notes": [*notes, *(f"Batch size {size} was not measured: {why}." for size, why in failures.items())],
            "batch_sizes": [size for size in sizes if size not in failures],
        }

    def _sizes(self) -> tuple[Sequence[int], list[str]]:
        """The batch sizes that the models take by their shapes, with a remark where they are not the requested ones."""
        requested, fixed = self._job["batch_sizes"], self._interface.fixed_batch
        if fixed is None or requested == [fixed]:
            return requested, []
        names = [each.name for each in self._sessions if each.interface.fixed_batch is not None]
        others = ", ".join(str(size) for size in requested if size != fixed)
        plural = "s" * (others.count(",") > 0)
        takes = f"take{'s' * (len(names) == 1)} batches of {fixed} only"
        return [fixed], [
            f"{' and '.join(names)} {takes}: all models were measured at that size, not at batch size{plural} {others}."
        ]

    def _read_uploaded(self) -> tuple[InputArrays, Array | None]:
        arrays, labels = load_uploaded(Path(self._job["uploaded"]["path"]))
        try:
            inputs = fit_arrays(self._interface, arrays)
        except ValueError as error:
            raise Refused(str(error)) from None
        if labels is not None and len(labels) != inputs.rows:
            raise Refused(f"labels: got {len(labels)}, expected one for each of the {inputs.rows} rows")
        return inputs, labels

    def _read_samples(self) -> tuple[InputArrays, Array, str] | None:
        """The samples of the first model that has some, with their labels and name; None where none has."""
        shape = self._interface.row_shape
        if shape is None and not self._interface.takes_columns:
            return None
        for model, session in zip(self._job["models"], self._sessions, strict=True):
            path = Path(model["samples"])
            try:
                if shape is None:  # numbered in the order of this model's inputs
                    texts = {tensor.name: tensor.datatype == BYTES for tensor in session.interface.inputs}
                    columns = read_column_samples(path, texts)
                    arrays, labels = columns.columns, columns.labels
                else:
                    samples = read_samples(path, shape)
                    arrays, labels = {self._interface.inputs[0].name: samples.inputs}, samples.labels
            except SamplesError:
                continue  # no file, or of another shape; the service logs damaged ones when it loads the model
            if len(labels):
                return InputArrays(arrays, self._interface.batch_axes), labels, f"samples of {model['name']}"
        return None

    def _generate(self, sizes: Sequence[int]) -> GeneratedInputs:
        """Find generated inputs with which all models run, at as many of the batch sizes as possible."""
        try:
            generated = find_inputs(self._interface, self._try)
        except NoInputs as error:
            hint = "expected arrays for their inputs, as an .npz file with an array for each input by name"
            raise Refused(f"inputs: got none, and the models fail on generated ones: {error}; {hint}") from None
        # A free axis without a name, such as the second one of [2, ?, 128], may be another one than the batch.
        first = {name: axis for name, axis in generated.batch_axes.items() if axis == 0}
        if first == generated.batch_axes or not first:
            return generated
        other = replace(generated, batch_axes=first)
        failures = [len(self._failures(each.arrays(max(sizes)), sizes)) for each in (generated, other)]
        return other if failures[1] < failures[0] else generated

    def _try(self, inputs: InputArrays, size: int) -> None:
        """Run all models.

        Raises:
            Failed: a model fails, or gives outputs that are not finite.
        """
        for session in self._sessions:
            try:
                outputs = session.run(session.feed(inputs, size))
            except Refused as error:
                raise Failed(str(error)) from None
            wrong = next((name for name, values in outputs.items() if not is_finite(values)), None)
            if wrong is not None:
                raise Failed(f"{session.name}: the output {wrong!r} is not finite")

    def _failures(self, inputs: InputArrays, sizes: Sequence[int]) -> dict[int, str]:
        """The batch sizes at which a model fails on the inputs, with the reason."""
        failures = {}
        for size in sizes:
            try:
                for session in self._sessions:
                    session.run(session.feed(inputs, size))
            except Refused as error:
                failures[size] = str(error)
        return failures

    def _description(self, generated: GeneratedInputs) -> str:
        each = "; ".join(generated.describe(tensor) for tensor in self._interface.inputs)
        return f"made up from the models' metadata: {each or 'no inputs'}"


if __name__ == "__main__":
    main()
