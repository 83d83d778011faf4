# Nano as the detector of MMDetection's ByteTrack, for videos; needs the package lap.
# init_track_model(CONFIG, detector=CHECKPOINT) and inference_mot of mmdet.apis run it.
# The same with OC-SORT: type='OCSORT' and a tracker of type='OCSORTTracker'.
_base_ = __import__('mmdet_rfdetr').config('rfdetr_nano_coco.py')

detector = _base_.model
preprocessor = detector.pop('data_preprocessor')
model = dict(
    _delete_=True,
    type='ByteTrack',
    data_preprocessor=dict(
        type='TrackDataPreprocessor',
        mean=preprocessor.mean,
        std=preprocessor.std,
        bgr_to_rgb=preprocessor.bgr_to_rgb,
        pad_size_divisor=preprocessor.pad_size_divisor,
    ),
    detector=detector,
    tracker=dict(
        type='ByteTracker',
        motion=dict(type='KalmanFilter'),
        obj_score_thrs=dict(high=0.5, low=0.1),
        init_track_thr=0.5,
        weight_iou_with_det_scores=True,
        match_iou_thrs=dict(high=0.1, low=0.5, tentative=0.3),
        num_frames_retain=30,
    ),
)
frame_pipeline = [
    dict(type='RFDETRLoadImage'),
    dict(type='RFDETRResize', image_size=384),
]
test_dataloader = dict(
    dataset=dict(
        pipeline=[
            dict(type='TransformBroadcaster', transforms=frame_pipeline),
            dict(type='PackTrackInputs'),
        ]
    )
)
