BEGIN TRANSACTION;
CREATE TABLE candidates (
    run INTEGER NOT NULL REFERENCES runs (id),
    method TEXT NOT NULL,
    idx INTEGER NOT NULL,
    widths BLOB NOT NULL,
    seed TEXT,
    costs TEXT NOT NULL,
    scores TEXT NOT NULL,
    seconds TEXT NOT NULL,
    selection TEXT NOT NULL,
    status TEXT NOT NULL,
    error TEXT NOT NULL,
    PRIMARY KEY (run, method, idx)
) WITHOUT ROWID;
INSERT INTO "candidates" VALUES(1,'random_search/l1/draw-0',0,X'0110020F1A040518150C0329',NULL,'{"macs":816484.0,"activations":6338.0,"attention_macs":0.0,"params":68263.0}','{"search_top1":0.43333333333333335,"minus_loss":-1.8045760050965762,"minus_kl":-1.6183024194896731,"proxy":-0.027578166244050233}','{"select":0.017715115000100923,"recover":0.029173163999985263,"evaluate":0.07854992000011407}','976b70f3d042ce4b','ok','');
INSERT INTO "candidates" VALUES(1,'random_search/l1/draw-0',1,X'010D04061E06051D370D0C2D',NULL,'{"macs":821326.0,"activations":5650.0,"attention_macs":0.0,"params":102008.0}','{"search_top1":0.7733333333333333,"minus_loss":-0.6743987563143061,"minus_kl":-0.41136176254402,"proxy":-0.03317252170520538}','{"select":0.01916000500023074,"recover":0.04470618499999546,"evaluate":0.07997317300032591}','62b17bc0892d664e','ok','');
INSERT INTO "candidates" VALUES(1,'random_search/l1/draw-1',0,X'010D070E1A010513360F0B2E',NULL,'{"macs":819666.0,"activations":5938.0,"attention_macs":0.0,"params":88507.0}','{"search_top1":0.8766666666666667,"minus_loss":-0.42806994093611384,"minus_kl":-0.20773249011464134,"proxy":-0.01851895863855949}','{"select":0.015123911000046064,"recover":0.04019661399979668,"evaluate":0.07466902700025457}','ccddf93bdccee121','ok','');
INSERT INTO "candidates" VALUES(1,'random_search/l1/draw-1',1,X'010E0D070F07051E17090921',NULL,'{"macs":804608.0,"activations":6106.0,"attention_macs":0.0,"params":66288.0}','{"search_top1":0.8333333333333334,"minus_loss":-0.5490205624138664,"minus_kl":-0.26550034954087814,"proxy":-0.018728868010266887}','{"select":0.014894744999764953,"recover":0.03737982500024373,"evaluate":0.0739252610001131}','5ba605a1dfe20664','ok','');
CREATE TABLE epochs (
    run INTEGER NOT NULL REFERENCES runs (id),
    network TEXT NOT NULL,
    epoch INTEGER NOT NULL,
    metrics TEXT NOT NULL,
    PRIMARY KEY (run, network, epoch)
) WITHOUT ROWID;
INSERT INTO "epochs" VALUES(1,'random_channels/random/draw-0/epochs-1/training-0',1,'{"train_loss":0.7917312383651733,"train_top1":0.7269345238095238,"learning_rate":0.00011169173774871478,"seconds":0.737677389000055}');
INSERT INTO "epochs" VALUES(1,'random_channels/random/draw-1/epochs-1/training-0',1,'{"train_loss":0.8164235949516296,"train_top1":0.7321428571428571,"learning_rate":0.00011169173774871478,"seconds":0.8817715750001298}');
INSERT INTO "epochs" VALUES(1,'random_search/l1/draw-0/epochs-1/training-0',1,'{"train_loss":0.7686595916748047,"train_top1":0.7366071428571429,"learning_rate":0.00011169173774871478,"seconds":0.7829781970003751}');
INSERT INTO "epochs" VALUES(1,'random_search/l1/draw-1/epochs-1/training-0',1,'{"train_loss":0.6912678480148315,"train_top1":0.7760416666666666,"learning_rate":0.00011169173774871478,"seconds":0.7596737429998939}');
INSERT INTO "epochs" VALUES(1,'uniform/l1/draw-0/epochs-1/training-0',1,'{"train_loss":0.7321850061416626,"train_top1":0.7581845238095238,"learning_rate":0.00011169173774871478,"seconds":0.7361537560000215}');
INSERT INTO "epochs" VALUES(1,'uniform/l1/draw-1/epochs-1/training-0',1,'{"train_loss":0.6947473883628845,"train_top1":0.7626488095238095,"learning_rate":0.00011169173774871478,"seconds":0.8662057370002003}');
CREATE TABLE ledger (
    id INTEGER PRIMARY KEY,
    run INTEGER NOT NULL REFERENCES runs (id),
    key TEXT NOT NULL,
    phase TEXT NOT NULL,
    candidates INTEGER NOT NULL,
    images_forward INTEGER NOT NULL,
    images_backward INTEGER NOT NULL,
    macs_spent REAL NOT NULL,
    seconds REAL NOT NULL,
    device TEXT NOT NULL,
    UNIQUE (run, key)
);
INSERT INTO "ledger" VALUES(1,1,'pretrain','pretrain',0,2688,2688,13159415808.0,1.47126543200010928558e+00,'cpu');
INSERT INTO "ledger" VALUES(2,1,'moments','calibrate',0,64,0,104439808.0,1.20707377899998391512e+00,'cpu');
INSERT INTO "ledger" VALUES(3,1,'scores','scores',0,0,0,0.0,3.94721210000170685816e-02,'cpu');
INSERT INTO "ledger" VALUES(4,1,'tables','calibrate',0,704,0,1148837888.0,1.98838778000026650261e+00,'cpu');
INSERT INTO "ledger" VALUES(5,1,'random_search/l1/draw-0','propose',2,664,0,543907864.0,4.51414834999923186842e-01,'cpu');
INSERT INTO "ledger" VALUES(6,1,'uniform/l1/draw-0','propose',0,64,0,51979392.0,1.58153042000321875093e-01,'cpu');
INSERT INTO "ledger" VALUES(7,1,'random_channels/random/draw-0','propose',0,64,0,51979392.0,1.68805440000141970813e-01,'cpu');
INSERT INTO "ledger" VALUES(8,1,'random_search/l1/draw-1','propose',2,664,0,539740824.0,4.32783588999882340431e-01,'cpu');
INSERT INTO "ledger" VALUES(9,1,'uniform/l1/draw-1','propose',0,64,0,51979392.0,1.57197582000208058161e-01,'cpu');
INSERT INTO "ledger" VALUES(10,1,'random_channels/random/draw-1','propose',0,64,0,51979392.0,1.7041014400001586182e-01,'cpu');
INSERT INTO "ledger" VALUES(11,1,'random_search/l1/draw-0/epochs-1/training-0','train',0,1344,1344,3311586432.0,8.14984537999862368451e-01,'cpu');
INSERT INTO "ledger" VALUES(12,1,'uniform/l1/draw-0/epochs-1/training-0','train',0,1344,1344,3274701696.0,7.74934183999903325457e-01,'cpu');
INSERT INTO "ledger" VALUES(13,1,'random_channels/random/draw-0/epochs-1/training-0','train',0,1344,1344,3274701696.0,7.72719855999639548826e-01,'cpu');
INSERT INTO "ledger" VALUES(14,1,'random_search/l1/draw-1/epochs-1/training-0','train',0,1344,1344,3304893312.0,7.98544111000410339329e-01,'cpu');
INSERT INTO "ledger" VALUES(15,1,'uniform/l1/draw-1/epochs-1/training-0','train',0,1344,1344,3274701696.0,0.899603790999663,'cpu');
INSERT INTO "ledger" VALUES(16,1,'random_channels/random/draw-1/epochs-1/training-0','train',0,1344,1344,3274701696.0,9.1451979800012850319e-01,'cpu');
INSERT INTO "ledger" VALUES(17,1,'test/dense','test',0,449,0,732710528.0,9.45725650003623741213e-02,'cpu');
INSERT INTO "ledger" VALUES(18,1,'test/random_search/l1/draw-0','test',0,449,0,368775374.0,8.20961330000500311143e-02,'cpu');
INSERT INTO "ledger" VALUES(19,1,'test/uniform/l1/draw-0','test',0,449,0,364667922.0,9.2258581999885791447e-02,'cpu');
INSERT INTO "ledger" VALUES(20,1,'test/random_channels/random/draw-0','test',0,449,0,364667922.0,7.32215379998706339392e-02,'cpu');
INSERT INTO "ledger" VALUES(21,1,'test/random_search/l1/draw-1','test',0,449,0,368030034.0,8.80576129998189571779e-02,'cpu');
INSERT INTO "ledger" VALUES(22,1,'test/uniform/l1/draw-1','test',0,449,0,364667922.0,7.32744980000461509916e-02,'cpu');
INSERT INTO "ledger" VALUES(23,1,'test/random_channels/random/draw-1','test',0,449,0,364667922.0,7.99387950000891578383e-02,'cpu');
INSERT INTO "ledger" VALUES(24,1,'test/random_search/l1/draw-0/epochs-1/training-0','test',0,449,0,368775374.0,6.60820650000459863804e-02,'cpu');
INSERT INTO "ledger" VALUES(25,1,'test/uniform/l1/draw-0/epochs-1/training-0','test',0,449,0,364667922.0,8.70346830001835769508e-02,'cpu');
INSERT INTO "ledger" VALUES(26,1,'test/random_channels/random/draw-0/epochs-1/training-0','test',0,449,0,364667922.0,8.22197479997157643083e-02,'cpu');
INSERT INTO "ledger" VALUES(27,1,'test/random_search/l1/draw-1/epochs-1/training-0','test',0,449,0,368030034.0,0.0793809599999804,'cpu');
INSERT INTO "ledger" VALUES(28,1,'test/uniform/l1/draw-1/epochs-1/training-0','test',0,449,0,364667922.0,9.2532285999823216116e-02,'cpu');
INSERT INTO "ledger" VALUES(29,1,'test/random_channels/random/draw-1/epochs-1/training-0','test',0,449,0,364667922.0,7.98682759996154345571e-02,'cpu');
CREATE TABLE milestones (
    id INTEGER PRIMARY KEY,
    run INTEGER NOT NULL REFERENCES runs (id),
    key TEXT NOT NULL,
    value TEXT NOT NULL,
    time TEXT NOT NULL,
    UNIQUE (run, key)
);
INSERT INTO "milestones" VALUES(1,1,'model','{"title":"digits_cnn","name":"randprune:digits_cnn","weights":"","data":"digits","classes":10,"input_shape":[1,8,8],"images":{"fit":984,"calibration":64,"search":300,"test":449}}','2026-11-24T23:50:53.117Z');
INSERT INTO "milestones" VALUES(2,1,'space','{"fingerprint":"9ba864955b224c7d","groups":[{"name":"conv1","width":16},{"name":"layer1.0.conv1","width":16},{"name":"layer1.1.conv1","width":16},{"name":"layer2.0.conv1","width":32},{"name":"layer2.0.conv2","width":8},{"name":"layer2.0.conv2#2","width":8},{"name":"layer2.1.conv1","width":32},{"name":"layer3.0.conv1","width":64},{"name":"layer3.0.conv2","width":16},{"name":"layer3.0.conv2#2","width":16},{"name":"layer3.1.conv1","width":64}],"frozen":[{"layer":"linear","channels":10,"width":10,"reason":"the network''s output"}],"dense":{"macs":1631872.0,"activations":8202.0,"attention_macs":0.0,"params":172218.0},"reachable":[0.01566789552121735,1.0]}','2026-11-24T23:50:53.118Z');
INSERT INTO "milestones" VALUES(3,1,'budget','{"metric":"macs","ratio":0.5,"tolerance":0.01}','2026-11-24T23:50:53.118Z');
INSERT INTO "milestones" VALUES(4,1,'reproduce','{"command":"randprune bench bench.toml","recipe":"job = \"bench\"\ntitle = \"F1 on digits\"\nstudy = \"smoke\"\nsetting = \"pretrained\"\nseed = 0\nplugins = []\ncriteria = [\"l1\"]\nrecovery = \"least_squares+bn\"\n\n[methods]\nrandom_search = {method = \"\", options = {candidates = 2}}\nuniform = {method = \"\", criteria = [\"l1\"], options = {}}\nrandom_channels = {method = \"\", options = {}}\n\n[model]\nspec = \"randprune:digits_cnn\"\nweights = \"\"\noptions = {}\nfreeze = []\nallow = []\nas_graph = false\n\n[data]\nspec = \"digits\"\ncalibration = 64\nsearch = 300\nseed = 0\noptions = {}\n\n[budget]\nmetric = \"macs\"\nratio = 0.5\ntolerance = 0.01\n\n[proposals]\nmin_keep = 0.1\nround_to = 1\nrank_by = \"kl\"\nprecision = \"auto\"\n\n[design]\ndraws = 2\ntrainings = 1\nepochs = [0, 1]\nreference = \"\"\nmargin = 0.005\nconfidence = 0.95\n\n[finetune]\nbatch_size = 64\noptimizer = \"sgd\"\nlr = 0.02\nmomentum = 0.9\nnesterov = true\nweight_decay = 0.0005\ndecay_norm_and_bias = false\nwarmup_epochs = 0.0\nschedule = \"cosine\"\nlabel_smoothing = 0.0\ndistill_weight = 0.0\ndistill_temperature = 2.0\nprecision = \"auto\"\nchannels_last = true\naugment = true\n\n[pretrain]\nepochs = 2\nbatch_size = 64\noptimizer = \"sgd\"\nlr = 0.1\nmomentum = 0.9\nnesterov = true\nweight_decay = 0.0005\ndecay_norm_and_bias = false\nwarmup_epochs = 0.0\nschedule = \"cosine\"\nlabel_smoothing = 0.0\ndistill_weight = 0.0\ndistill_temperature = 2.0\nprecision = \"auto\"\nchannels_last = true\naugment = true\n\n[output]\nfolder = \"bench\"\nworkers = 0\n","recipe_file":"bench.toml"}','2026-11-24T23:50:53.118Z');
INSERT INTO "milestones" VALUES(5,1,'test_set_use','{"before_final":0,"final":1}','2026-11-24T23:51:08.912Z');
INSERT INTO "milestones" VALUES(6,1,'bench_dense','{"macs":1631872.0,"params":172218,"search":{"correct":278,"images":300},"test":{"correct":420,"images":449}}','2026-11-24T23:51:07.183Z');
INSERT INTO "milestones" VALUES(7,1,'bench_protocol','{"title":"F1 on digits","setting":"pretrained","weights_hash":"7e3a63f6e2dc58d16d36071e9fdb7788594c68ff91a214e5ad5444a57875d97b","methods":[{"label":"random_search","method":"random_search","options":{"candidates":2},"criteria":["l1"],"epochs":[0,1],"words":"2 random configurations within the budget, compared on the search images before any training; the best one is proposed."},{"label":"uniform","method":"uniform","options":{},"criteria":["l1"],"epochs":[0,1],"words":"The same share of channels in every layer of the dense network."},{"label":"random_channels","method":"random_channels","options":{},"criteria":["random"],"epochs":[0,1],"words":"Channels drawn at random, at uniform widths."}],"reference":"random_search/l1","draw_seeds":[1842054407,179697783],"training_seeds":[1983093173],"recovery":"least_squares+bn","study":"smoke","rank_by":"kl","min_keep":0.1,"round_to":1,"finetune":{"batch_size":64,"optimizer":"sgd","lr":0.02,"momentum":0.9,"nesterov":true,"weight_decay":0.0005,"decay_norm_and_bias":false,"warmup_epochs":0.0,"schedule":"cosine","label_smoothing":0.0,"distill_weight":0.0,"distill_temperature":2.0,"precision":"auto","channels_last":true,"augment":true,"ema_decay":null,"grad_clip":null},"margin":0.005,"confidence":0.95,"widen":{},"supernet":{},"notes":[]}','2026-11-24T23:50:59.303Z');
INSERT INTO "milestones" VALUES(8,1,'proposal/random_search/l1/draw-0','{"row":"random_search/l1","label":"random_search","method":"random_search","criterion":"l1","draw":0,"status":"ok","error":"","widths":[13,4,6,30,6,5,29,55,13,12,45],"selection":"62b17bc0892d664e","chosen":1,"macs":821326.0,"params":102008,"ratio":0.503302955133736,"proxy":-0.03317252170520538,"search":{"correct":248,"images":300},"minus_kl":-0.32480753063302303,"minus_loss":-0.5278615022004479,"test":{"correct":354,"images":449},"spent":{"scores":{"candidates":0,"images_forward":0,"images_backward":0,"macs":0.0,"seconds":0.03241148000006433,"device":"cpu"},"propose":{"candidates":2,"images_forward":728,"images_backward":0,"macs":648347672.0,"seconds":0.4514148349999232,"device":"cpu"}}}','2026-11-24T23:51:07.330Z');
INSERT INTO "milestones" VALUES(9,1,'proposal/uniform/l1/draw-0','{"row":"uniform/l1","label":"uniform","method":"uniform","criterion":"l1","draw":0,"status":"ok","error":"","widths":[11,11,11,23,6,6,23,46,11,11,46],"selection":"4b92fb3f6966702b","chosen":null,"macs":812178.0,"params":87545,"ratio":0.4976971233037885,"proxy":-0.028874185986898327,"search":{"correct":263,"images":300},"minus_kl":-0.17648951808774688,"minus_loss":-0.41594620139254473,"test":{"correct":385,"images":449},"spent":{"scores":{"candidates":0,"images_forward":0,"images_backward":0,"macs":0.0,"seconds":0.03241148000006433,"device":"cpu"},"propose":{"candidates":0,"images_forward":128,"images_backward":0,"macs":156419200.0,"seconds":0.15815304200032188,"device":"cpu"}}}','2026-11-24T23:51:07.483Z');
INSERT INTO "milestones" VALUES(10,1,'proposal/random_channels/random/draw-0','{"row":"random_channels/random","label":"random_channels","method":"random_channels","criterion":"random","draw":0,"status":"ok","error":"","widths":[11,11,11,23,6,6,23,46,11,11,46],"selection":"fb67545b68bdf683","chosen":null,"macs":812178.0,"params":87545,"ratio":0.4976971233037885,"proxy":-0.028874185986898327,"search":{"correct":239,"images":300},"minus_kl":-0.3352652253008197,"minus_loss":-0.5878752807971241,"test":{"correct":356,"images":449},"spent":{"scores":{"candidates":0,"images_forward":0,"images_backward":0,"macs":0.0,"seconds":0.0,"device":"cpu"},"propose":{"candidates":0,"images_forward":128,"images_backward":0,"macs":156419200.0,"seconds":0.16880544000014197,"device":"cpu"}}}','2026-11-24T23:51:07.625Z');
INSERT INTO "milestones" VALUES(11,1,'proposal/random_search/l1/draw-1','{"row":"random_search/l1","label":"random_search","method":"random_search","criterion":"l1","draw":1,"status":"ok","error":"","widths":[13,7,14,26,1,5,19,54,15,11,46],"selection":"ccddf93bdccee121","chosen":0,"macs":819666.0,"params":88507,"ratio":0.5022857184877245,"proxy":-0.01851895863855949,"search":{"correct":265,"images":300},"minus_kl":-0.19122602647429882,"minus_loss":-0.3787589719417762,"test":{"correct":395,"images":449},"spent":{"scores":{"candidates":0,"images_forward":0,"images_backward":0,"macs":0.0,"seconds":0.03241148000006433,"device":"cpu"},"propose":{"candidates":2,"images_forward":728,"images_backward":0,"macs":644180632.0,"seconds":0.43278358899988234,"device":"cpu"}}}','2026-11-24T23:51:07.778Z');
INSERT INTO "milestones" VALUES(12,1,'proposal/uniform/l1/draw-1','{"row":"uniform/l1","label":"uniform","method":"uniform","criterion":"l1","draw":1,"status":"ok","error":"","widths":[11,11,11,23,6,6,23,46,11,11,46],"selection":"4b92fb3f6966702b","chosen":null,"macs":812178.0,"params":87545,"ratio":0.4976971233037885,"proxy":-0.028874185986898327,"search":{"correct":263,"images":300},"minus_kl":-0.17648951808774688,"minus_loss":-0.41594620139254473,"test":{"correct":385,"images":449},"spent":{"scores":{"candidates":0,"images_forward":0,"images_backward":0,"macs":0.0,"seconds":0.03241148000006433,"device":"cpu"},"propose":{"candidates":0,"images_forward":128,"images_backward":0,"macs":156419200.0,"seconds":0.15719758200020806,"device":"cpu"}}}','2026-11-24T23:51:07.906Z');
INSERT INTO "milestones" VALUES(13,1,'proposal/random_channels/random/draw-1','{"row":"random_channels/random","label":"random_channels","method":"random_channels","criterion":"random","draw":1,"status":"ok","error":"","widths":[11,11,11,23,6,6,23,46,11,11,46],"selection":"4ca2907d091b9b1c","chosen":null,"macs":812178.0,"params":87545,"ratio":0.4976971233037885,"proxy":-0.028874185986898327,"search":{"correct":249,"images":300},"minus_kl":-0.2671304326079599,"minus_loss":-0.5103329847788944,"test":{"correct":383,"images":449},"spent":{"scores":{"candidates":0,"images_forward":0,"images_backward":0,"macs":0.0,"seconds":0.0,"device":"cpu"},"propose":{"candidates":0,"images_forward":128,"images_backward":0,"macs":156419200.0,"seconds":0.17041014400001586,"device":"cpu"}}}','2026-11-24T23:51:08.046Z');
INSERT INTO "milestones" VALUES(14,1,'training/random_search/l1/draw-0/epochs-1/training-0','{"row":"random_search/l1","draw":0,"epochs":1,"training":0,"status":"ok","error":"","test":{"correct":415,"images":449},"seed":1983093173,"spent":{"candidates":0,"images_forward":1344,"images_backward":1344,"macs":3311586432.0,"seconds":0.8149845379998624,"device":"cpu"}}','2026-11-24T23:51:08.191Z');
INSERT INTO "milestones" VALUES(15,1,'training/uniform/l1/draw-0/epochs-1/training-0','{"row":"uniform/l1","draw":0,"epochs":1,"training":0,"status":"ok","error":"","test":{"correct":409,"images":449},"seed":1983093173,"spent":{"candidates":0,"images_forward":1344,"images_backward":1344,"macs":3274701696.0,"seconds":0.7749341839999033,"device":"cpu"}}','2026-11-24T23:51:08.328Z');
INSERT INTO "milestones" VALUES(16,1,'training/random_channels/random/draw-0/epochs-1/training-0','{"row":"random_channels/random","draw":0,"epochs":1,"training":0,"status":"ok","error":"","test":{"correct":405,"images":449},"seed":1983093173,"spent":{"candidates":0,"images_forward":1344,"images_backward":1344,"macs":3274701696.0,"seconds":0.7727198559996395,"device":"cpu"}}','2026-11-24T23:51:08.468Z');
INSERT INTO "milestones" VALUES(17,1,'training/random_search/l1/draw-1/epochs-1/training-0','{"row":"random_search/l1","draw":1,"epochs":1,"training":0,"status":"ok","error":"","test":{"correct":413,"images":449},"seed":171022007,"spent":{"candidates":0,"images_forward":1344,"images_backward":1344,"macs":3304893312.0,"seconds":0.7985441110004103,"device":"cpu"}}','2026-11-24T23:51:08.609Z');
INSERT INTO "milestones" VALUES(18,1,'training/uniform/l1/draw-1/epochs-1/training-0','{"row":"uniform/l1","draw":1,"epochs":1,"training":0,"status":"ok","error":"","test":{"correct":410,"images":449},"seed":171022007,"spent":{"candidates":0,"images_forward":1344,"images_backward":1344,"macs":3274701696.0,"seconds":0.899603790999663,"device":"cpu"}}','2026-11-24T23:51:08.773Z');
INSERT INTO "milestones" VALUES(19,1,'training/random_channels/random/draw-1/epochs-1/training-0','{"row":"random_channels/random","draw":1,"epochs":1,"training":0,"status":"ok","error":"","test":{"correct":410,"images":449},"seed":171022007,"spent":{"candidates":0,"images_forward":1344,"images_backward":1344,"macs":3274701696.0,"seconds":0.9145197980001285,"device":"cpu"}}','2026-11-24T23:51:08.911Z');
CREATE TABLE networks (
    id INTEGER PRIMARY KEY,
    run INTEGER NOT NULL REFERENCES runs (id),
    label TEXT NOT NULL,
    stage TEXT NOT NULL,
    seed TEXT NOT NULL,
    role TEXT NOT NULL,
    row TEXT NOT NULL,
    UNIQUE (run, label, stage, seed)
);
CREATE TABLE runs (
    id INTEGER PRIMARY KEY,
    key TEXT NOT NULL UNIQUE,
    kind TEXT NOT NULL,
    recipe TEXT NOT NULL,
    recipe_hash TEXT NOT NULL,
    seed TEXT NOT NULL,
    fingerprint TEXT NOT NULL,
    weights_hash TEXT NOT NULL,
    data_fingerprint TEXT NOT NULL,
    provenance TEXT NOT NULL,
    status TEXT NOT NULL CHECK (status IN ('running', 'finished', 'failed', 'interrupted')),
    started TEXT NOT NULL,
    finished TEXT NOT NULL DEFAULT '',
    error TEXT NOT NULL DEFAULT ''
);
INSERT INTO "runs" VALUES(1,'c3644f372f3cffb8','bench','{"job":"bench","setting":"pretrained","seed":0,"plugins":[],"criteria":["l1"],"recovery":"least_squares+bn","methods":{"random_search":{"method":"","options":{"candidates":2}},"uniform":{"method":"","criteria":["l1"],"options":{}},"random_channels":{"method":"","options":{}}},"budget":{"metric":"macs","ratio":0.5,"tolerance":0.01},"proposals":{"min_keep":0.1,"round_to":1,"rank_by":"kl","precision":"auto"},"design":{"draws":2,"trainings":1,"epochs":[0,1],"reference":"","margin":0.005,"confidence":0.95},"finetune":{"batch_size":64,"optimizer":"sgd","lr":0.02,"momentum":0.9,"nesterov":true,"weight_decay":0.0005,"decay_norm_and_bias":false,"warmup_epochs":0.0,"schedule":"cosine","label_smoothing":0.0,"distill_weight":0.0,"distill_temperature":2.0,"precision":"auto","channels_last":true,"augment":true},"pretrain":{"epochs":2,"batch_size":64,"optimizer":"sgd","lr":0.1,"momentum":0.9,"nesterov":true,"weight_decay":0.0005,"decay_norm_and_bias":false,"warmup_epochs":0.0,"schedule":"cosine","label_smoothing":0.0,"distill_weight":0.0,"distill_temperature":2.0,"precision":"auto","channels_last":true,"augment":true},"trace":{"freeze":[],"allow":[],"as_graph":false}}','0569d7fdaa518550','0','9ba864955b224c7d','051a01628b82e343d3991c63404be258421c849bd577860fbcf356f88fd345da','d9a1822a179b5a31','{"time":"2026-11-24T23:50:53Z","command":"python -m randprune bench smoke --draws 2 --workers 0 --quiet --set criteria=[\"l1\"] --set pretrain.epochs=2 --set methods.random_search.options.candidates=2 --set data.calibration=64 --set design.epochs=[0,1] -o bench --json","versions":{"python":"3.11.7","randprune":"0.1.0","torch":"2.13.0+cpu","numpy":"2.4.6"},"platform":"Linux x86_64, glibc 2.36","cpu":{"model":"Intel(R) Xeon(R) Processor","features":["avx2","avx512f","avx512_vnni","avx512_bf16","amx_tile","amx_bf16","amx_int8"],"cores":2,"threads":1},"memory_bytes":25276502016,"gpus":[],"git":null}','finished','2026-11-24T23:50:53.111Z','2026-11-24T23:51:08.929Z','');
CREATE TABLE sessions (
    id INTEGER PRIMARY KEY,
    run INTEGER NOT NULL REFERENCES runs (id),
    pid INTEGER NOT NULL,
    started TEXT NOT NULL,
    ended TEXT NOT NULL DEFAULT '',
    provenance TEXT NOT NULL
);
INSERT INTO "sessions" VALUES(1,1,2204,'2026-11-24T23:50:53.111Z','2026-11-24T23:51:08.929Z','{"time":"2026-11-24T23:50:53Z","command":"python -m randprune bench smoke --draws 2 --workers 0 --quiet --set criteria=[\"l1\"] --set pretrain.epochs=2 --set methods.random_search.options.candidates=2 --set data.calibration=64 --set design.epochs=[0,1] -o bench --json","versions":{"python":"3.11.7","randprune":"0.1.0","torch":"2.13.0+cpu","numpy":"2.4.6"},"platform":"Linux x86_64, glibc 2.36","cpu":{"model":"Intel(R) Xeon(R) Processor","features":["avx2","avx512f","avx512_vnni","avx512_bf16","amx_tile","amx_bf16","amx_int8"],"cores":2,"threads":1},"memory_bytes":25276502016,"gpus":[],"git":null}');
COMMIT;
PRAGMA application_id = 1380995633;
PRAGMA user_version = 1;
