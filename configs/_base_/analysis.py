# Whether a run can learn; a curve and drawn detections when it ends.
_base_ = ['./faults.py']

default_hooks = dict(
    health=dict(type='RFDETRHealthHook'),
    summary=dict(type='RFDETRSummaryHook'),
)
