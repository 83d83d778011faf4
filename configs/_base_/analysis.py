# A curve of the training and drawn detections, when a run ends.
_base_ = ['./faults.py']

default_hooks = dict(summary=dict(type='RFDETRSummaryHook'))
