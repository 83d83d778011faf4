"""The plugin comes first, as in every program: MMDetection needs it with mmcv-lite."""

import mmdet_rfdetr  # noqa: F401
