"""What the parameters of every study have in common."""

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field


class Parameters(BaseModel):
    """What every notebook takes. A study's own parameters extend this; the defaults are those of `laptop`."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    profile: str = "laptop"
    variant: Annotated[str, Field(description="a second run of the same study, on other data", pattern="^[a-z0-9_-]*$")] = ""
    device: Annotated[Literal["auto", "cpu", "cuda", "mps"], Field(description="auto: the fastest there is")] = "auto"
