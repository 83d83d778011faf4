# Whether a run learns, and where its numbers break; curve and detections at its end.
_base_ = ['./faults.py']

default_hooks = dict(
    precision=dict(type='RFDETRPrecisionHook'),
    health=dict(type='RFDETRHealthHook'),
    non_finite=dict(type='RFDETRNonFiniteHook', skip=0),
    summary=dict(type='RFDETRSummaryHook'),
)
