"""`CompileBackendSPU` for the engine: from its model files to a compiled package."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from spu_ir._version import __version__
from spu_ir.errors import SpuError

from .samples import DataLoader, Feeds, first_rows
from .settings import Settings, settings_of

if TYPE_CHECKING:
    import onnx

BUILD = "spu_ir_build"
"""Made in the backend's folder: exported and compiled models, by task."""

ONNX_PATH = "spu_ir_onnx"
"""Where `pre_optimize` leaves the path of the ONNX file, among the engine's configs."""


class CompileSide:
    """
    What the engine asks of a compile backend, in this order: `get_interact_profile`,
    `pre_optimize`, `segment`, `get_best_batch_size`, `compile`.

    `configs` is the engine's: `workload` and `model_info` (its JSON files), `interact_info`.
    Relative paths in it are the engine's too: it works in `byte_infer_perf`.
    """

    def __init__(self, folder: Path):
        """`folder` is the backend's, for `spu_ir.json` and what is built."""
        super().__init__()
        self.hardware_type = "SPU"
        self.need_reload = False
        self.need_quant = False
        self.folder = folder

    def version(self) -> str:
        """That of spu_ir."""
        return __version__

    def get_interact_profile(self, config: Mapping[str, Any]) -> list[dict[str, Any]]:
        """No question: the engine would open a dialogue for any."""
        return []

    def pre_optimize(self, configs: Mapping[str, Any]) -> dict[str, Any]:
        """
        `configs` with the path of an ONNX model: the task's own, or an export of its TorchScript.

        Raises SpuError for a model file that is missing, and for other frameworks.
        """
        info = configs["model_info"]
        framework = info["framework"]
        source = Path(info["model_path"])
        if not source.is_file():
            raise SpuError(
                f"the model {source} is missing", remedy="put it there, or let launch.py fetch it"
            )
        if framework == "Onnx":
            return {**configs, ONNX_PATH: str(source)}
        if framework != "Pytorch":
            raise SpuError(
                f"{info['model']} is a model of {framework}", remedy="use one of Pytorch or Onnx"
            )
        from .from_torch import export_torchscript

        target = self._build_folder(info["model"]) / "model.onnx"
        export_torchscript(
            source,
            target,
            inputs=info["inputs"].split(","),
            outputs=info["outputs"].split(","),
            shapes=info["input_shape"],
            types=info["input_type"].split(","),
        )
        return {**configs, ONNX_PATH: str(target)}

    def segment(self, configs: Mapping[str, Any]) -> None:
        """Nothing: a model is one segment."""

    def tuning(self, configs: Mapping[str, Any]) -> None:
        """Nothing."""

    def get_best_batch_size(self) -> None:
        """None: those of the workload, as one program runs all of them."""

    def compile(
        self, configs: Mapping[str, Any], dataloader: DataLoader | None = None
    ) -> dict[str, Any]:
        """
        Compile the model for all batch sizes, and describe the result as the engine reads it.

        Precision and sparsity are those of `settings_of`, and a dense model is pruned.
        Convolutions in INT8 are calibrated on the first samples of the data set, and what "mixed"
        keeps out of INT8 is measured on them. `compiled_obj` is the package's path. Raises
        SpuError as `spu_ir.compile` does.
        """
        import spu_ir
        from spu_ir.perf.network import REPORTED, any_batch
        from spu_ir.sparsify.files import read_model

        from .pruning import pruned_at

        if ONNX_PATH not in configs:
            configs = self.pre_optimize(configs)
        info = configs["model_info"]
        settings = settings_of(info["model"], self.folder)
        dense = read_model(configs[ONNX_PATH])
        pruned = pruned_at(dense, settings.sparsity, settings.precision)
        largest = max([info.get("max_batch_size") or 1, *configs["workload"]["batch_sizes"]])
        calibration = _calibration(dataloader, pruned.model, settings)
        model = spu_ir.compile(
            pruned.model,
            precision=settings.precision,
            calibration=calibration,
            budget=settings.budget,
            shapes=any_batch(info["input_shape"], largest),
            padding="skip" if settings.padding == "skip" else "compute",
        )
        package = self._build_folder(info["model"]) / "model.spu"
        model.save(package, levels=[model.level])
        return {
            "model": info["model"],
            "framework": info["framework"],
            "framework_version": info.get("framework_version"),
            "compile_precision": REPORTED[settings.precision],
            "compile_status": "success",
            "sg_percent": 100,
            "optimizations": {
                "pruning": pruned.note,
                "weight sparsity": round(pruned.sparsity, 4),
                "compiler": f"spu_ir {__version__}, {model.level}, on the host's CPU",
            },
            "sparsity_ratio": round(pruned.sparsity, 4),
            "instance_count": 1,
            "device_count": 1,
            "input_type": info["input_type"].split(","),
            "max_batch_size": largest,
            "segments": [
                {
                    "sg_idx": 0,
                    "is_fallback": False,
                    "input_tensor_map": info["input_shape"],
                    "output_tensor_map": info["outputs"],
                    "compiled_model": [{"compiled_bs": largest, "compiled_obj": str(package)}],
                }
            ],
            "interact_info": configs.get("interact_info", {}),
        }

    def _build_folder(self, task: str) -> Path:
        folder = self.folder / BUILD / task
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise SpuError(f"{folder} cannot be made: {error}") from error
        return folder.resolve()


def _calibration(
    loader: DataLoader | None, model: onnx.ModelProto, settings: Settings
) -> Iterable[Feeds] | None:
    """The first samples that the data set has, where some are needed: as `spu-perf` does."""
    from onnx import helper

    from spu_ir.perf.network import needs_calibration

    if loader is None or not needs_calibration(model, settings.precision):
        return None
    constants = {tensor.name for tensor in model.graph.initializer}
    inputs = {
        value.name: helper.tensor_dtype_to_np_dtype(value.type.tensor_type.elem_type)
        for value in model.graph.input
        if value.name not in constants
    }
    return first_rows(loader, inputs, settings.calibration)
