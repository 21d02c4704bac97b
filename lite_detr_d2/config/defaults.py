"""Every configuration key that Lite DETR adds to detectron2's, with its default.

A comment is of the keys below it, up to the next comment or empty line: the documentation's list of keys is made of
them.
"""

from detectron2.config import CfgNode


def add_lite_detr_config(cfg: CfgNode) -> None:
    """Add the keys of Lite DETR to ``cfg`` (detectron2's default config), in place.

    The defaults are those of DINO on COCO with a plain encoder; see ``configs/`` for whole recipes.
    """
    cfg.MODEL.LITE_DETR = _detector_keys()

    _add_backbone_keys(cfg)

    # DETR's augmentation: with probability 0.5, resize the short side to one of these, then crop as INPUT.CROP says.
    cfg.INPUT.CROP.MIN_SIZE_TRAIN = (400, 500, 600)
    # Of images with more than 8 bits, the value that becomes 255, such as 4095.0. With 0.0, the range of each image is
    # the smallest of 1 (floating point), 255, 1023, 4095, 16383, 65535 and 2**31 - 1 that holds its largest value.
    cfg.INPUT.MAX_VALUE = 0.0

    # Keys of detectron2's samplers that have no default there. The part of the images that SAMPLER_TRAIN
    # "RandomSubsetTrainingSampler" draws; and the weights of datasets for the two whose names begin with "Weighted",
    # such as [["mine_train", 2.0]].
    cfg.DATALOADER.RANDOM_SUBSET_RATIO = 1.0
    cfg.DATASETS.TRAIN_REPEAT_FACTOR = []

    # lite_detr_d2.engine.Trainer: ADAMW, or SGD as detectron2 builds it.
    cfg.SOLVER.OPTIMIZER = "ADAMW"
    # Parameters that are not trained: patterns of their names, such as ["backbone.*", "*.sampling_offsets.*"].
    cfg.SOLVER.FREEZE = []
    # The batch that BASE_LR and BASE_LR_END are for: of another IMS_PER_BATCH, both are scaled with it. 0: they are for
    # whatever batch is given.
    cfg.SOLVER.REFERENCE_BATCH = 0
    # Learning-rate multipliers of the backbone, and of the layers that predict sampling offsets and reference points.
    cfg.SOLVER.BACKBONE_MULTIPLIER = 0.1
    cfg.SOLVER.OFFSET_MULTIPLIER = 1.0
    # Clip the L2 norm of all gradients together, instead of each parameter's (CLIP_GRADIENTS.ENABLED turns it on).
    cfg.SOLVER.CLIP_GRADIENTS.FULL_MODEL = False
    # A batch is seen in so many parts, one after the other, which takes less memory: the gradients are those of the
    # whole batch of IMS_PER_BATCH images.
    cfg.SOLVER.ACCUMULATE = 1
    # Of mixed precision, if AMP.ENABLED turns it on: "float16", or "bfloat16" where the GPU has it, and on the CPU.
    cfg.SOLVER.AMP.DTYPE = "float16"
    # So many batches whose losses or gradients are not finite are passed over, in a whole training; the next one ends
    # it. OUTPUT_DIR/bad_batches.json says which they were.
    cfg.SOLVER.MAX_SKIPPED_STEPS = 10
    # Of the checkpoints that CHECKPOINT_PERIOD makes, so many stay, the last ones; 0: all. model_final.pth stays, and
    # model_best.pth, which has the highest AP on the first of DATASETS.TEST.
    cfg.SOLVER.KEEP_LAST = 3
    # End the training after so many evaluations (TEST.EVAL_PERIOD) in a row without a higher AP on the first of
    # DATASETS.TEST; 0: never.
    cfg.SOLVER.EARLY_STOP = CfgNode({"PATIENCE": 0})
    # "backbone" and "encoder", or one of them: what their layers compute is not kept for the backward pass, which
    # computes it again. It takes less memory, and more time.
    cfg.SOLVER.RECOMPUTE = []
    # torch.compile makes one graph of what is trained, from the backbone to the decoder, for images of all sizes. It
    # takes minutes before the first step, and a C++ compiler on the CPU; steps are faster from then on.
    cfg.SOLVER.COMPILE = False
    # PyTorch's deterministic algorithms in training, with which a GPU gives the same bits each time, and gradients of
    # attention take much longer. On the CPU they are the same without.
    cfg.SOLVER.DETERMINISTIC = False
    # An exponential moving average of the weights, of which each step keeps the share DECAY: it is evaluated beside the
    # weights (bbox_ema), and in checkpoints it is "ema".
    cfg.SOLVER.EMA = CfgNode({"ENABLED": False, "DECAY": 0.9998})
    # Where a training's curves and pictures go besides OUTPUT_DIR: "wandb" (Weights & Biases) and "mlflow", or one.
    cfg.LOGGERS = []
    # So many images of each of DATASETS.TEST are drawn at every evaluation, the same ones each time, for TensorBoard
    # and LOGGERS.
    cfg.TEST.PICTURES = 4
    # The number of training images that the schedule is made for: --dataset fits it to a set of another size, unless
    # --epochs decides (see lite_detr_d2.engine.schedule). 0: the schedule is for whatever dataset is given, as in a
    # config of your own set.
    cfg.SOLVER.REFERENCE_NUM_IMAGES = 0


def _add_backbone_keys(cfg: CfgNode) -> None:
    # build_swin_backbone: detectron2's Swin Transformer, whose defaults here are Swin-T. Channels of the first stage.
    cfg.MODEL.SWIN = CfgNode()
    cfg.MODEL.SWIN.EMBED_DIM = 96
    # Blocks of each stage, and their attention heads.
    cfg.MODEL.SWIN.DEPTHS = [2, 2, 6, 2]
    cfg.MODEL.SWIN.NUM_HEADS = [3, 6, 12, 24]
    # Side of the windows that attend to themselves, in tokens.
    cfg.MODEL.SWIN.WINDOW_SIZE = 7
    # Stochastic depth in training: the share of images that skip the last block; earlier blocks are skipped less.
    cfg.MODEL.SWIN.DROP_PATH_RATE = 0.2
    # Stages whose outputs are kept: 1 is p1 (stride 8), 2 is p2 (16), 3 is p3 (32).
    cfg.MODEL.SWIN.OUT_INDICES = [1, 2, 3]

    # build_timm_backbone: a model of timm, by its name there, such as "convnext_tiny". Most serve.
    cfg.MODEL.TIMM = CfgNode()
    cfg.MODEL.TIMM.NAME = ""
    # Outputs that are kept, counted from 0, fine to coarse: i is called stage{i}. []: the last three; of a plain vision
    # transformer the last one, of which detectron2's SimpleFeaturePyramid makes maps of half, once and twice its
    # stride, called by the power of two: p3 (stride 8), p4 (16) and p5 (32) where patches have 16 pixels a side.
    cfg.MODEL.TIMM.OUT_INDICES = []
    # Where MODEL.WEIGHTS is "", start from the weights that timm has for the name, downloaded at first use.
    cfg.MODEL.TIMM.PRETRAINED = False
    # Of batch normalisations: "BN" trains them, "FrozenBN" leaves statistics and weights as they are loaded.
    cfg.MODEL.TIMM.NORM = "FrozenBN"
    # Stochastic depth in training: the share of images that skip the last block; earlier blocks are skipped less.
    cfg.MODEL.TIMM.DROP_PATH_RATE = 0.0


def _detector_keys() -> CfgNode:
    node = CfgNode()
    # Training starts from what fits of this checkpoint, of another detector or encoder, instead of MODEL.WEIGHTS (which
    # give the backbone if this one has another).
    node.INIT = ""
    # Which row of a checkpoint's class heads a class takes. "names": that of the class of the same name, where both are
    # known. "ids": where the checkpoint does not name its classes, row i is for the dataset's category id i: DINO and
    # Deformable DETR are trained so on a set of one's own, with one row more than its highest id.
    node.CLASS_ROWS = "names"
    # How many there are; --dataset sets it to the dataset's.
    node.NUM_CLASSES = 80
    # What they are called, in their order; training sets it to the dataset's. Empty: not known here.
    node.CLASS_NAMES = []
    # Queries of the decoder: no more objects are found in an image.
    node.NUM_QUERIES = 900
    # Backbone outputs, fine to coarse. Further levels, up to NUM_LEVELS, are stride-2 convolutions of the last one.
    node.IN_FEATURES = ["res3", "res4", "res5"]
    node.NUM_LEVELS = 4
    # Channels of a token, split evenly over the attention heads.
    node.HIDDEN_DIM = 256
    node.NUM_HEADS = 8
    # The share of values that dropout sets to zero in training, in encoder and decoder.
    node.DROPOUT = 0.0
    # Temperature of the sine encoding of token positions; that of the queries' boxes is always 10000.
    node.POSITION_TEMPERATURE = 20
    # Each decoder layer starts from the boxes of the layer before. DINO needs this and the next three.
    node.BOX_REFINEMENT = True
    # The loss of a layer's boxes reaches the layer before.
    node.LOOK_FORWARD_TWICE = True
    # Queries start from the encoder's proposals; else they are learned.
    node.TWO_STAGE = True
    # With them, the queries' content is learned; else it is made of the proposals, too.
    node.MIXED_SELECTION = True
    # DeformableDETR and HDETR, TWO_STAGE: the encoder's proposals learn the classes, and the best of any class are
    # selected; else they learn whether there is an object at all. DINO's learn the classes.
    node.CLASS_SPECIFIC_PROPOSALS = False
    # Likewise, without MIXED_SELECTION: the queries' content is the encoder's token that each starts from.
    node.CONTENT_FROM_MEMORY = False

    node.ENCODER = CfgNode()
    # A name in lite_detr_d2.modeling.encoder.ENCODER_REGISTRY.
    node.ENCODER.NAME = "DeformableEncoder"
    # Layers of DeformableEncoder and SparseEncoder; an InterleavedEncoder's count follows from its spec.
    node.ENCODER.NUM_LAYERS = 6
    # SparseEncoder: the share of an image's tokens that is refined, above 0, and at most 1.
    node.ENCODER.RHO = 0.3
    # SparseEncoder: in training, every layer but the last predicts objects of the tokens that it refined.
    node.ENCODER.AUXILIARY_LOSS = True
    # InterleavedEncoder: HxLy-(A+1)xB, and how a block refines the low-level tokens: "joint", "sequential" or
    # "high_only" (not at all).
    node.ENCODER.SPEC = "H3L1-(2+1)x3"
    node.ENCODER.FUSION = "joint"
    # Key-aware deformable attention, in the encoder and in the decoder's cross-attention.
    node.ENCODER.KEY_AWARE = False
    # Whether key-aware attention in the encoder projects keys on their own (else keys are the projected values).
    node.ENCODER.KEY_PROJ = False
    # Width of the layers' feed-forward networks.
    node.ENCODER.DIM_FEEDFORWARD = 2048
    # InterleavedEncoder: the low-level tokens' own feed-forward network is this many times narrower (the paper's
    # lambda); 0 makes it as wide, and with joint fusion the same.
    node.ENCODER.LOW_LEVEL_FFN_RATIO = 8
    # Sampling points per head and level.
    node.ENCODER.NUM_POINTS = 4

    node.DECODER = CfgNode()
    # Layers of the decoder, each of which has a loss.
    node.DECODER.NUM_LAYERS = 6
    # Width of their feed-forward networks.
    node.DECODER.DIM_FEEDFORWARD = 2048
    # Sampling points per head and level.
    node.DECODER.NUM_POINTS = 4

    _add_training_keys(node)
    return node


def _add_training_keys(node: CfgNode) -> None:
    # DINO's contrastive denoising. NUM_QUERIES noised positives, and as many negatives, are shared out over groups that
    # each hold an image's boxes; 0 turns it off. As published, fewer than 50 are not shared out: they make
    # 2 * NUM_QUERIES groups.
    node.DENOISING = CfgNode()
    node.DENOISING.NUM_QUERIES = 100
    # A label flips to a random one with half this probability.
    node.DENOISING.LABEL_NOISE = 0.5
    # Corners move by up to this fraction of half the box's size (negatives: by one to two times that).
    node.DENOISING.BOX_NOISE = 1.0

    # H-DETR's one-to-many branch: so many further queries in training (0 turns it off), how many of them a target is
    # matched to, and the weight of their losses.
    node.ONE_TO_MANY = CfgNode()
    node.ONE_TO_MANY.NUM_QUERIES = 1500
    node.ONE_TO_MANY.REPEATS = 6
    node.ONE_TO_MANY.WEIGHT = 1.0

    node.MATCHER = CfgNode()
    # What matching a query with a target costs: weights of its class, the L1 distance of the boxes, and their GIoU.
    node.MATCHER.CLASS_COST = 2.0
    node.MATCHER.L1_COST = 5.0
    node.MATCHER.GIOU_COST = 2.0

    node.LOSS = CfgNode()
    # Weights of the losses: focal loss of the classes, L1 distance of the boxes, and their GIoU.
    node.LOSS.CLASS_WEIGHT = 1.0
    node.LOSS.L1_WEIGHT = 5.0
    node.LOSS.GIOU_WEIGHT = 2.0
    # Of the focal loss: the weight of objects (of background: what is left to 1), and how much it favours what is hard.
    node.LOSS.FOCAL_ALPHA = 0.25
    node.LOSS.FOCAL_GAMMA = 2.0
