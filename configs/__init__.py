"""Settings: the typed schema, the presets, and the folder everything is kept in."""

from configs.load import SettingsError, load_settings
from configs.schema import Period, Settings
from configs.workspace import Workspace

__all__ = ["Period", "Settings", "SettingsError", "Workspace", "load_settings"]
