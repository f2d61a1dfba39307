"""Settings of a process: flags, ``NAS_*`` environment, ``paretoformer.toml``, defaults."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, ValidationError
from pydantic_settings import (
    BaseSettings,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
    TomlConfigSettingsSource,
)

from search_spaces.errors import InvalidInput, Problem, pointer

SETTINGS_FILE = "paretoformer.toml"


class Settings(BaseSettings):
    """Everything that a process can be told from outside. Read once, by the composition root."""

    model_config = SettingsConfigDict(
        env_prefix="NAS_", toml_file=SETTINGS_FILE, extra="forbid", frozen=True
    )

    data: Path = Path("paretoformer")
    """Folder of the database (when it is SQLite), data sets, checkpoints and exports."""
    database: str | None = None
    """SQLAlchemy URL; by default SQLite inside ``data``."""
    host: str = "127.0.0.1"
    port: Annotated[int, Field(ge=0, le=65535)] = 8000
    url: str = "http://127.0.0.1:8000"
    """Where the client commands find the service."""
    ray_address: str = "local"
    """``local`` starts a private Ray; otherwise the address of a running cluster."""
    lease_seconds: Annotated[float, Field(gt=1)] = 10.0
    poll_seconds: Annotated[float, Field(gt=0)] = 0.5
    max_upload_bytes: Annotated[int, Field(gt=0)] = 2 * 1024**3
    watts_per_core: Annotated[float, Field(ge=0)] = 10.0
    """For the energy of a job where no counter measures it: server CPUs under load, on average."""
    watts_per_gpu: Annotated[float, Field(ge=0)] = 300.0
    """Likewise, for each GPU that a trial takes."""
    country: Annotated[str, Field(pattern=r"^[A-Z]{3}$")] | None = None
    """Where the workers are (ISO 3166 alpha-3): whose electricity a job's CO₂ is reckoned by."""
    co2_kg_per_kwh: Annotated[float, Field(ge=0)] | None = None
    """Instead of the country's yearly mean; without either, the mean of the world."""
    price_per_device_hour: Annotated[float, Field(ge=0)] = 0.0
    """Of a GPU for jobs that take any, else of a core."""
    currency: str = "EUR"
    log_level: Literal["debug", "info", "warning", "error"] = "info"
    log_format: Literal["console", "json"] = "console"

    @property
    def database_url(self) -> str:
        """The database to use."""
        return self.database or f"sqlite:///{(self.data / 'paretoformer.db').resolve()}"

    @property
    def datasets(self) -> Path:
        """Uploaded data, one file per SHA-256."""
        return self.data / "datasets"

    @property
    def checkpoints(self) -> Path:
        """Checkpoints, ``<job>/<trial>.pt``."""
        return self.data / "checkpoints"

    @property
    def exports(self) -> Path:
        """Finished exports, one file each."""
        return self.data / "exports"

    @property
    def cache(self) -> Path:
        """Generated data that can be made again."""
        return self.data / "cache"

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Where settings come from, first come first."""
        return init_settings, env_settings, TomlConfigSettingsSource(settings_cls)


def read_settings(**flags: object) -> Settings:
    """Settings from flags (None: not given), environment and file.

    Raises:
        InvalidInput: naming each setting that cannot be used.
    """
    given = {name: value for name, value in flags.items() if value is not None}
    try:
        return Settings(**given)  # type: ignore[arg-type]
    except ValidationError as error:
        raise InvalidInput(
            [Problem(pointer(e["loc"]), e["msg"]) for e in error.errors()]
        ) from error
