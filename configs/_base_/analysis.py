# Whether a run learns, and where its numbers break; a bar on
# terminals; curve and detections at its end.
_base_ = ['./faults.py']

default_hooks = dict(
    precision=dict(type='RFDETRPrecisionHook'),
    health=dict(type='RFDETRHealthHook'),
    non_finite=dict(type='RFDETRNonFiniteHook', skip=0),
    progress=dict(type='RFDETRProgressHook'),
    summary=dict(type='RFDETRSummaryHook'),
)
