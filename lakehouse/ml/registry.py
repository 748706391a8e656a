"""The registry: MLflow's models, versions and aliases, as the assets and commands need them. No dagster here.

    candidate ─▶ save (skops) ─▶ load back ─▶ version, with all its tags ─▶ alias `champion` (the former: `previous`) ─▶ load

A version is made in one request, after its artifact was read back, and found again by its `fingerprint`; so a run that was killed
anywhere leaves nothing that the next one does not take up. An alias names one version: there is never a second champion.
What is loaded is skops, with types of a list that is ours: the list in the artifact is the artifact's own word for itself.
"""

import json
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any, Literal

from lakehouse.core.errors import DeclarationError, LakehouseError
from lakehouse.core.names import TableRef
from lakehouse.core.store.storage import Storage
from lakehouse.core.table.snapshot import open_existing
from lakehouse.ml.features import FEATURES
from lakehouse.ml.recipes import Recipe

if TYPE_CHECKING:
    from lakehouse.ml.models import RevenueModel

MODEL = "previsao_vendas"
EXPERIMENT = "previsao_vendas"
#: What a model of ours is made of besides what skops trusts by itself.
TRUSTED = ("lakehouse.ml.models.RevenueModel", "sklearn.ensemble._hist_gradient_boosting.predictor.TreePredictor")
#: Prefix of the tags of a version that are ours.
TAG = "lakehouse."
Alias = Literal["champion", "previous"]
_TRIES, _PAUSE = 4, 2.0


class RegistryError(LakehouseError):
    """MLflow does not answer, or refuses. No alias was moved and no version is half made."""


class ModelGoneError(LakehouseError):
    """A registered version has no artifact that can be used."""


class UntrustedModelError(ModelGoneError):
    """An artifact holds something that is not loaded."""


def need_extra() -> None:
    """See that the extra `ml` is installed.

    Raises:
        DeclarationError: it is not.
    """
    from importlib.util import find_spec

    if missing := [name for name in ("mlflow", "dagster_mlflow", "sklearn", "skops", "holidays") if find_spec(name) is None]:
        raise DeclarationError(
            f"The forecast needs {', '.join(missing)}, which {'is' if len(missing) == 1 else 'are'} not installed.",
            remedy="Run make trigger JOB=mlops, which installs the extra ml.",
        )


@dataclass(frozen=True)
class Version:
    """One registered version; `tags` are ours, without the prefix."""

    number: int
    tags: Mapping[str, str]

    @property
    def recipe(self) -> Recipe | None:
        """Its recipe; None when this code cannot make it."""
        try:
            return Recipe.from_json(self.tags.get("recipe", ""))
        except DeclarationError:
            return None

    def document(self, name: str) -> Any:
        """A tag that holds JSON; {} when there is none."""
        return json.loads(self.tags.get(name, "{}"))


@dataclass(frozen=True)
class Registry:
    """MLflow at a tracking URI: `sqlite:///<file>`, or the URL of a server."""

    uri: str

    @property
    def artifacts(self) -> str | None:
        """Where artifacts go when no server decides it: beside the database."""
        file = self.file
        return None if file is None else (file.parent / "artifacts").as_uri()

    @property
    def file(self) -> Path | None:
        """Its SQLite file, where it is one."""
        return Path(self.uri.removeprefix("sqlite:///")) if self.uri.startswith("sqlite:///") else None

    @property
    def used(self) -> bool:
        """Whether there can be anything in it."""
        return self.file is None or self.file.is_file()

    def open(self) -> Any:
        """An `MlflowClient`, when the registry answers.

        Raises:
            RegistryError: it does not, after some tries.
        """
        need_extra()
        if self.file is not None:
            self.file.parent.mkdir(parents=True, exist_ok=True)
        else:
            self._reach()
        import mlflow
        from mlflow import environment_variables as settings

        settings.MLFLOW_HTTP_REQUEST_MAX_RETRIES.set(3)  # seven tries by default, which take four minutes
        settings.MLFLOW_HTTP_REQUEST_TIMEOUT.set(30)
        settings.MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR.set(False)
        mlflow.set_tracking_uri(self.uri)
        mlflow.set_registry_uri(self.uri)
        with self._explained():
            return mlflow.MlflowClient(tracking_uri=self.uri, registry_uri=self.uri)

    def _reach(self) -> None:
        if not self.uri.startswith(("http://", "https://")):
            return
        import urllib.request

        for left in reversed(range(_TRIES)):
            try:
                with urllib.request.urlopen(f"{self.uri.rstrip('/')}/health", timeout=5):  # nosec B310 # http or https, seen above
                    return
            except OSError as error:
                if not left:
                    raise self._silent(error) from error
                time.sleep(_PAUSE)

    def _silent(self, error: Exception) -> RegistryError:
        reported = str(error).splitlines()[0][:160] if str(error) else type(error).__name__
        return RegistryError(
            f"MLflow at {self.uri} does not answer as it should ({reported}).",
            remedy="Start it or fix MLFLOW_TRACKING_URI, and run mlops again; the champion has not changed.",
        )

    @contextmanager
    def _explained(self) -> Iterator[None]:
        """Say what MLflow's errors mean."""
        from mlflow.exceptions import MlflowException
        from sqlalchemy.exc import SQLAlchemyError

        try:
            yield
        except (MlflowException, SQLAlchemyError, OSError) as error:
            raise self._silent(error) from error

    def experiment(self) -> None:
        """Make the experiment, with a place for artifacts, when it is not there."""
        from mlflow.exceptions import MlflowException

        client = self.open()
        with self._explained():
            if client.get_experiment_by_name(EXPERIMENT) is None:
                try:
                    client.create_experiment(EXPERIMENT, artifact_location=self.artifacts)
                except MlflowException:  # another run was first
                    if client.get_experiment_by_name(EXPERIMENT) is None:
                        raise

    # --- versions ------------------------------------------------------------------------------------------------------

    def versions(self) -> list[Version]:
        """Every version, newest first."""
        if not self.used:
            return []
        client = self.open()
        with self._explained():
            found = list(client.search_model_versions(f"name='{MODEL}'", max_results=10_000))
        return sorted((_version(each) for each in found), key=lambda version: -version.number)

    def alias(self, alias: Alias) -> Version | None:
        """The version that an alias names."""
        from mlflow.exceptions import MlflowException

        client = self.open()
        try:
            return _version(client.get_model_version_by_alias(MODEL, alias))
        except MlflowException as error:
            # An alias that is not there is INVALID_PARAMETER_VALUE, a model that is not there RESOURCE_DOES_NOT_EXIST.
            if error.error_code in ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE"):
                return None
            raise self._silent(error) from error

    def find(self, fingerprint: str) -> Version | None:
        """The first version with this fingerprint whose artifact can still be used."""
        mine = [version for version in self.versions() if version.tags.get("fingerprint") == fingerprint]
        return next((version for version in reversed(mine) if self.usable(version)), None)

    def usable(self, version: Version) -> bool:
        """Whether a version can be loaded and takes the features that there are."""
        try:
            self.load(version)
        except ModelGoneError:
            return False
        return True

    def register(self, model_uri: str, *, run_id: str, model_id: str, tags: Mapping[str, str]) -> Version:
        """Make a version of a saved model, whole or not at all."""
        from mlflow.exceptions import MlflowException

        client = self.open()
        with self._explained():
            try:
                client.create_registered_model(MODEL, description="Forecast of daily revenue (lakehouse/ml).")
            except MlflowException as error:
                if error.error_code != "RESOURCE_ALREADY_EXISTS":
                    raise
            own = {TAG + name: value for name, value in tags.items()}
            return _version(client.create_model_version(MODEL, model_uri, run_id, tags=own, model_id=model_id))

    def tag(self, version: Version, name: str, value: str) -> None:
        client = self.open()
        with self._explained():
            client.set_model_version_tag(MODEL, str(version.number), TAG + name, value)

    def point(self, alias: Alias, version: Version) -> None:
        """Let an alias name this version: one request, so it names one or the other."""
        client = self.open()
        with self._explained():
            client.set_registered_model_alias(MODEL, alias, str(version.number))

    # --- models --------------------------------------------------------------------------------------------------------

    def load(self, version: Version) -> "RevenueModel":
        """The model of a version.

        Raises:
            ModelGoneError: its artifact is not there, or its features are not those of this code.
            UntrustedModelError: the artifact is not skops, or holds other types than ours.
        """
        import mlflow
        from mlflow.exceptions import MlflowException

        self.open()
        name = f"{MODEL} version {version.number}"
        if json.loads(version.tags.get("features", "[]")) != list(FEATURES):
            raise ModelGoneError(
                f"{name} takes other features than this code makes.", remedy="Run mlops: it trains and evaluates another one."
            )
        with TemporaryDirectory() as folder:
            try:
                downloaded = mlflow.artifacts.download_artifacts(
                    artifact_uri=f"models:/{MODEL}/{version.number}", dst_path=folder, tracking_uri=self.uri
                )
            except (MlflowException, OSError) as error:
                self._reach()
                raise _gone(name, error) from error
            return read_model(Path(downloaded), name)


def read_model(folder: Path, name: str) -> "RevenueModel":
    """A saved model, as MLflow lays it out.

    Raises:
        ModelGoneError: there is none, or it cannot be read.
        UntrustedModelError: it is not skops, or holds other types than ours.
    """
    import zipfile

    import skops.io
    import yaml

    from lakehouse.ml.models import RevenueModel

    try:
        flavor = yaml.safe_load((folder / "MLmodel").read_text())["flavors"]["sklearn"]
        if flavor["serialization_format"] != "skops":
            raise UntrustedModelError(
                f"{name} is saved as {flavor['serialization_format']}, which can run any code when it is loaded.",
                remedy="It is not loaded. Register it again with mlops.",
            )
        file = folder / Path(flavor["pickled_model"]).name
        foreign = sorted(set(skops.io.get_untrusted_types(file=file)) - set(TRUSTED))
        if foreign:
            raise UntrustedModelError(
                f"{name} holds types that are not trusted: {', '.join(foreign)[:300]}.",
                remedy="It is not loaded. See who wrote the artifact; make rollback-model goes back to the version before.",
            )
        model = skops.io.load(file, trusted=list(TRUSTED))
    except (OSError, KeyError, TypeError, ValueError, yaml.YAMLError, zipfile.BadZipFile) as error:
        raise _gone(name, error) from error
    if not isinstance(model, RevenueModel):
        raise UntrustedModelError(
            f"{name} is a {type(model).__name__}, not a model of ours.", remedy="It is not loaded. Register one with mlops."
        )
    return model


def _gone(name: str, error: Exception) -> ModelGoneError:
    reported = str(error).splitlines()[0][:160] if str(error) else type(error).__name__
    return ModelGoneError(
        f"The artifact of {name} cannot be read ({reported}).",
        remedy="Run mlops, which registers another one; or make rollback-model for the version before.",
    )


def _version(found: Any) -> Version:
    tags = {name.removeprefix(TAG): value for name, value in (found.tags or {}).items() if name.startswith(TAG)}
    return Version(int(found.version), tags)


def versions_in_use(registry: Registry, storage: Storage) -> dict[TableRef, frozenset[int]]:
    """The Delta versions of each table that registered models were made from. Maintenance must not vacuum them.

    Versions of a table that has been removed and made again since are left out: they are gone already.
    """
    used: dict[TableRef, set[int]] = {}
    ids: dict[str, str] = {}
    for version in registry.versions():
        for table, number in version.document("inputs").items():
            ref = TableRef(*table.split("/"))
            if table not in ids:
                snapshot = open_existing(storage.uri(ref))
                ids[table] = snapshot.id if snapshot else ""
            if version.document("input_ids").get(table) == ids[table]:
                used.setdefault(ref, set()).add(int(number))
    return {ref: frozenset(numbers) for ref, numbers in used.items()}


def save_model(mlflow: Any, model: "RevenueModel", example: Any) -> tuple[str, str]:
    """Save a model into MLflow's active run as skops, and see that what is read back predicts the same.

    Args:
        example: some rows of FEATURES, kept as the input example.

    Returns:
        The model's URI and id.
    """
    import numpy as np
    import pandas as pd
    from mlflow.models import infer_signature

    rows = pd.DataFrame(example, columns=list(FEATURES))
    info = mlflow.sklearn.log_model(
        model,
        name="model",
        serialization_format="skops",
        skops_trusted_types=list(TRUSTED),
        signature=infer_signature(rows, model.predict(example)),
        input_example=rows,
        pip_requirements=_requirements(),
    )
    with TemporaryDirectory() as folder:
        downloaded = mlflow.artifacts.download_artifacts(artifact_uri=info.model_uri, dst_path=folder)
        back = read_model(Path(downloaded), "The model that was just saved")
    if not np.array_equal(back.predict(example), model.predict(example)):
        raise ModelGoneError(
            "The model that was just saved predicts something else.", remedy="Nothing was registered; report it."
        )
    return info.model_uri, info.model_id


def _requirements() -> list[str]:
    """What the model needs besides this package; MLflow's own guess loads the model in another process, which takes seconds."""
    from importlib.metadata import version

    return [f"{name}=={version(name)}" for name in ("mlflow", "numpy", "pandas", "scikit-learn", "skops", "threadpoolctl")]


def code_commit(folder: Path) -> str:
    """The git commit of a checkout, with `+changes` when files differ from it; empty where there is none."""
    import git

    try:
        checkout = git.Repo(folder)
        return str(checkout.head.commit.hexsha) + ("+changes" if checkout.is_dirty() else "")
    except (git.GitError, ValueError, OSError):
        return ""
