"""The published works behind lenses, tuning methods, suites and statistics: one entry each, under one key.

Who cites what stands in :mod:`tunescope.lenses.works.citations`.
"""

from __future__ import annotations

from tunescope.lenses.works.work import Work


def _icml(year: int) -> str:
    return f"Proceedings of the International Conference on Machine Learning ({year})"


def _iclr(year: int) -> str:
    return f"International Conference on Learning Representations ({year})"


def _neurips(year: int) -> str:
    return f"Advances in Neural Information Processing Systems ({year})"


def _acl(conference: str, year: int) -> str:
    return f"Proceedings of {conference} ({year})"


# fmt: off
WORKS: dict[str, Work] = {
    # How alike states are.
    "kornblith2019": Work(
        "inproceedings", "Kornblith, Simon and Norouzi, Mohammad and Lee, Honglak and Hinton, Geoffrey",
        "Similarity of Neural Network Representations Revisited", 2019, _icml(2019), "1905.00414",
    ),
    "song2012": Work(
        "article", "Song, Le and Smola, Alex and Gretton, Arthur and Bedo, Justin and Borgwardt, Karsten",
        "Feature Selection via Dependence Maximization", 2012,
        "Journal of Machine Learning Research 13, 1393--1434",
    ),
    "gretton2005": Work(
        "inproceedings", "Gretton, Arthur and Bousquet, Olivier and Smola, Alex and Schölkopf, Bernhard",
        "Measuring Statistical Dependence with Hilbert-Schmidt Norms", 2005,
        "Algorithmic Learning Theory (2005)",
    ),
    "nguyen2021": Work(
        "inproceedings", "Nguyen, Thao and Raghu, Maithra and Kornblith, Simon", "Do Wide and Deep Networks "
        "Learn the Same Things? Uncovering How Neural Network Representations Vary with Width and Depth", 2021,
        _iclr(2021), "2010.15327",
    ),
    "kriegeskorte2008": Work(
        "article", "Kriegeskorte, Nikolaus and Mur, Marieke and Bandettini, Peter",
        "Representational Similarity Analysis: Connecting the Branches of Systems Neuroscience", 2008,
        "Frontiers in Systems Neuroscience 2, 4",
    ),
    "schonemann1966": Work(
        "article", "Schönemann, Peter H.", "A Generalized Solution of the Orthogonal Procrustes Problem", 1966,
        "Psychometrika 31(1), 1--10",
    ),
    # Dimensions and maps.
    "timkey2021": Work(
        "inproceedings", "Timkey, William and van Schijndel, Marten", "All Bark and No Bite: Rogue Dimensions "
        "in Transformer Language Models Obscure Representational Quality", 2021, _acl("EMNLP", 2021),
        "2109.04404",
    ),
    "rudman2022": Work(
        "inproceedings", "Rudman, William and Gillman, Nate and Rayne, Taylor and Eickhoff, Carsten",
        "IsoScore: Measuring the Uniformity of Embedding Space Utilization", 2022, "Findings of ACL (2022)",
        "2108.07344",
    ),
    "rudman2023": Work(
        "inproceedings", "Rudman, William and Chen, Catherine and Eickhoff, Carsten",
        "Outlier Dimensions Encode Task Specific Knowledge", 2023, _acl("EMNLP", 2023), "2310.17715",
    ),
    "vandermaaten2008": Work(
        "article", "van der Maaten, Laurens and Hinton, Geoffrey", "Visualizing Data using t-SNE", 2008,
        "Journal of Machine Learning Research 9, 2579--2605",
    ),
    "mcinnes2018": Work(
        "misc", "McInnes, Leland and Healy, John and Melville, James", "UMAP: Uniform Manifold Approximation "
        "and Projection for Dimension Reduction", 2018, "", "1802.03426",
    ),
    "venna2001": Work(
        "inproceedings", "Venna, Jarkko and Kaski, Samuel", "Neighborhood Preservation in Nonlinear Projection "
        "Methods: An Experimental Study", 2001, "International Conference on Artificial Neural Networks (2001)",
    ),
    # What can be read off.
    "alain2016": Work(
        "misc", "Alain, Guillaume and Bengio, Yoshua", "Understanding Intermediate Layers Using Linear "
        "Classifier Probes", 2016, "", "1610.01644",
    ),
    "hewitt2019": Work(
        "inproceedings", "Hewitt, John and Liang, Percy",
        "Designing and Interpreting Probes with Control Tasks", 2019, _acl("EMNLP-IJCNLP", 2019), "1909.03368",
    ),
    "nostalgebraist2020": Work(
        "misc", "nostalgebraist", "Interpreting GPT: The Logit Lens", 2020, "LessWrong",
        url="https://www.lesswrong.com/posts/AcKRB8wDpdaN6v6ru/interpreting-gpt-the-logit-lens",
    ),
    "belrose2023": Work(
        "misc", "Belrose, Nora and Furman, Zach and Smith, Logan and Halawi, Danny and others",
        "Eliciting Latent Predictions from Transformers with the Tuned Lens", 2023, "", "2303.08112",
    ),
    "elhage2021": Work(
        "misc", "Elhage, Nelson and Nanda, Neel and Olsson, Catherine and Henighan, Tom and others",
        "A Mathematical Framework for Transformer Circuits", 2021, "Transformer Circuits Thread",
        url="https://transformer-circuits.pub/2021/framework/index.html",
    ),
    "kobayashi2021": Work(
        "inproceedings", "Kobayashi, Goro and Kuribayashi, Tatsuki and Yokoi, Sho and Inui, Kentaro",
        "Incorporating Residual and Normalization Layers into Analysis of Masked Language Models", 2021,
        _acl("EMNLP", 2021), "2109.07152",
    ),
    "clark2019": Work(
        "inproceedings", "Clark, Kevin and Khandelwal, Urvashi and Levy, Omer and Manning, Christopher D.",
        "What Does BERT Look at? An Analysis of BERT's Attention", 2019, _acl("BlackboxNLP", 2019),
        "1906.04341",
    ),
    "sun2024": Work(
        "inproceedings", "Sun, Mingjie and Chen, Xinlei and Kolter, J. Zico and Liu, Zhuang",
        "Massive Activations in Large Language Models", 2024, "Conference on Language Modeling (2024)",
        "2402.17762",
    ),
    "shuttleworth2024": Work(
        "misc", "Shuttleworth, Reece and Andreas, Jacob and Torralba, Antonio and Sharma, Pratyusha",
        "LoRA vs Full Fine-tuning: An Illusion of Equivalence", 2024, "", "2410.21228",
    ),
    # What decides: taking out, putting in.
    "michel2019": Work(
        "inproceedings", "Michel, Paul and Levy, Omer and Neubig, Graham",
        "Are Sixteen Heads Really Better than One?", 2019, _neurips(2019), "1905.10650",
    ),
    "nanda2023": Work(
        "misc", "Nanda, Neel", "Attribution Patching: Activation Patching at Industrial Scale", 2023, "",
        url="https://www.neelnanda.io/mechanistic-interpretability/attribution-patching",
    ),
    "kramar2024": Work(
        "misc", "Kramár, János and Lieberum, Tom and Shah, Rohin and Nanda, Neel", "AtP*: An Efficient and "
        "Scalable Method for Localizing LLM Behaviour to Components", 2024, "", "2403.00745",
    ),
    "vig2020": Work(
        "inproceedings", "Vig, Jesse and Gehrmann, Sebastian and Belinkov, Yonatan and Qian, Sharon and Nevo, "
        "Daniel and Singer, Yaron and Shieber, Stuart", "Investigating Gender Bias in Language Models Using "
        "Causal Mediation Analysis", 2020, _neurips(2020), "2004.12265",
    ),
    "meng2022": Work(
        "inproceedings", "Meng, Kevin and Bau, David and Andonian, Alex and Belinkov, Yonatan",
        "Locating and Editing Factual Associations in GPT", 2022, _neurips(2022), "2202.05262",
    ),
    "wang2023": Work(
        "inproceedings", "Wang, Kevin and Variengien, Alexandre and Conmy, Arthur and Shlegeris, Buck and "
        "Steinhardt, Jacob", "Interpretability in the Wild: A Circuit for Indirect Object Identification in "
        "GPT-2 Small", 2023, _iclr(2023), "2211.00593",
    ),
    "heimersheim2024": Work(
        "misc", "Heimersheim, Stefan and Nanda, Neel", "How to Use and Interpret Activation Patching", 2024, "",
        "2404.15255",
    ),
    "prakash2024": Work(
        "inproceedings", "Prakash, Nikhil and Shaham, Tamar Rott and Haklay, Tal and Belinkov, Yonatan and "
        "Bau, David", "Fine-Tuning Enhances Existing Mechanisms: A Case Study on Entity Tracking", 2024,
        _iclr(2024), "2402.14811",
    ),
    "panigrahi2023": Work(
        "inproceedings", "Panigrahi, Abhishek and Saunshi, Nikunj and Zhao, Haoyu and Arora, Sanjeev",
        "Task-Specific Skill Localization in Fine-tuned Language Models", 2023, _icml(2023), "2302.06600",
    ),
    "sundararajan2017": Work(
        "inproceedings", "Sundararajan, Mukund and Taly, Ankur and Yan, Qiqi",
        "Axiomatic Attribution for Deep Networks", 2017, _icml(2017), "1703.01365",
    ),
    "li2016": Work(
        "misc", "Li, Jiwei and Monroe, Will and Jurafsky, Dan", "Understanding Neural Networks through "
        "Representation Erasure", 2016, "", "1612.08220",
    ),
    "abnar2020": Work(
        "inproceedings", "Abnar, Samira and Zuidema, Willem", "Quantifying Attention Flow in Transformers", 2020,
        _acl("ACL", 2020), "2005.00928",
    ),
    "roy2007": Work(
        "inproceedings", "Roy, Olivier and Vetterli, Martin",
        "The Effective Rank: A Measure of Effective Dimensionality", 2007,
        "European Signal Processing Conference (2007)",
    ),
    # Tuning.
    "hu2022": Work(
        "inproceedings", "Hu, Edward J. and Shen, Yelong and Wallis, Phillip and Allen-Zhu, Zeyuan and Li, "
        "Yuanzhi and Wang, Shean and Wang, Lu and Chen, Weizhu",
        "LoRA: Low-Rank Adaptation of Large Language Models", 2022, _iclr(2022), "2106.09685",
    ),
    "liu2024": Work(
        "inproceedings", "Liu, Shih-Yang and Wang, Chien-Yi and Yin, Hongxu and Molchanov, Pavlo and Wang, "
        "Yu-Chiang Frank and Cheng, Kwang-Ting and Chen, Min-Hung",
        "DoRA: Weight-Decomposed Low-Rank Adaptation", 2024, _icml(2024), "2402.09353",
    ),
    "zaken2022": Work(
        "inproceedings", "Ben Zaken, Elad and Goldberg, Yoav and Ravfogel, Shauli",
        "BitFit: Simple Parameter-efficient Fine-tuning for Transformer-based Masked Language-models", 2022,
        _acl("ACL", 2022), "2106.10199",
    ),
    "liu2022": Work(
        "inproceedings", "Liu, Haokun and Tam, Derek and Muqeeth, Mohammed and Mohta, Jay and Huang, Tenghao "
        "and Bansal, Mohit and Raffel, Colin", "Few-Shot Parameter-Efficient Fine-Tuning is Better and Cheaper "
        "than In-Context Learning", 2022, _neurips(2022), "2205.05638",
    ),
    "zhao2021": Work(
        "inproceedings", "Zhao, Zihao and Wallace, Eric and Feng, Shi and Klein, Dan and Singh, Sameer",
        "Calibrate Before Use: Improving Few-shot Performance of Language Models", 2021, _icml(2021),
        "2102.09690",
    ),
    "menon2021": Work(
        "inproceedings", "Menon, Aditya Krishna and Jayasumana, Sadeep and Rawat, Ankit Singh and Jain, "
        "Himanshu and Veit, Andreas and Kumar, Sanjiv", "Long-Tail Learning via Logit Adjustment", 2021,
        _iclr(2021), "2007.07314",
    ),
    "loshchilov2019": Work(
        "inproceedings", "Loshchilov, Ilya and Hutter, Frank", "Decoupled Weight Decay Regularization", 2019,
        _iclr(2019), "1711.05101",
    ),
    "radford2019": Work(
        "misc", "Radford, Alec and Wu, Jeffrey and Child, Rewon and Luan, David and Amodei, Dario and "
        "Sutskever, Ilya", "Language Models are Unsupervised Multitask Learners", 2019, "OpenAI",
    ),
    "devlin2019": Work(
        "inproceedings", "Devlin, Jacob and Chang, Ming-Wei and Lee, Kenton and Toutanova, Kristina",
        "BERT: Pre-training of Deep Bidirectional Transformers for Language Understanding", 2019,
        _acl("NAACL-HLT", 2019), "1810.04805",
    ),
    "wolf2020": Work(
        "inproceedings", "Wolf, Thomas and Debut, Lysandre and Sanh, Victor and Chaumond, Julien and others",
        "Transformers: State-of-the-Art Natural Language Processing", 2020,
        _acl("EMNLP: System Demonstrations", 2020), "1910.03771",
    ),
    # Statistics.
    "wilson1927": Work(
        "article", "Wilson, Edwin B.", "Probable Inference, the Law of Succession, and Statistical Inference",
        1927, "Journal of the American Statistical Association 22(158), 209--212",
    ),
    "efron1979": Work(
        "article", "Efron, Bradley", "Bootstrap Methods: Another Look at the Jackknife", 1979,
        "The Annals of Statistics 7(1), 1--26",
    ),
    "holm1979": Work(
        "article", "Holm, Sture", "A Simple Sequentially Rejective Multiple Test Procedure", 1979,
        "Scandinavian Journal of Statistics 6(2), 65--70",
    ),
    "benjamini1995": Work(
        "article", "Benjamini, Yoav and Hochberg, Yosef", "Controlling the False Discovery Rate: A Practical "
        "and Powerful Approach to Multiple Testing", 1995, "Journal of the Royal Statistical Society, Series B "
        "57(1), 289--300",
    ),
    "mcnemar1947": Work(
        "article", "McNemar, Quinn", "Note on the Sampling Error of the Difference between Correlated "
        "Proportions or Percentages", 1947, "Psychometrika 12(2), 153--157",
    ),
    "schuirmann1987": Work(
        "article", "Schuirmann, Donald J.", "A Comparison of the Two One-Sided Tests Procedure and the Power "
        "Approach for Assessing the Equivalence of Average Bioavailability", 1987,
        "Journal of Pharmacokinetics and Biopharmaceutics 15(6), 657--680",
    ),
    "sellam2022": Work(
        "inproceedings", "Sellam, Thibault and Yadlowsky, Steve and Wei, Jason and Saphra, Naomi and others",
        "The MultiBERTs: BERT Reproductions for Robustness Analysis", 2022, _iclr(2022), "2106.16163",
    ),
    "guo2017": Work(
        "inproceedings", "Guo, Chuan and Pleiss, Geoff and Sun, Yu and Weinberger, Kilian Q.",
        "On Calibration of Modern Neural Networks", 2017, _icml(2017), "1706.04599",
    ),
    "saerens2002": Work(
        "article", "Saerens, Marco and Latinne, Patrice and Decaestecker, Christine", "Adjusting the Outputs "
        "of a Classifier to New a Priori Probabilities: A Simple Procedure", 2002,
        "Neural Computation 14(1), 21--41",
    ),
    # Behaviour and summaries.
    "ribeiro2020": Work(
        "inproceedings", "Ribeiro, Marco Tulio and Wu, Tongshuang and Guestrin, Carlos and Singh, Sameer",
        "Beyond Accuracy: Behavioral Testing of NLP Models with CheckList", 2020, _acl("ACL", 2020),
        "2005.04118",
    ),
    "kiritchenko2018": Work(
        "inproceedings", "Kiritchenko, Svetlana and Mohammad, Saif", "Examining Gender and Race Bias in Two "
        "Hundred Sentiment Analysis Systems", 2018, _acl("*SEM", 2018), "1805.04508",
    ),
    "zhao2018": Work(
        "inproceedings", "Zhao, Jieyu and Wang, Tianlu and Yatskar, Mark and Ordonez, Vicente and Chang, "
        "Kai-Wei", "Gender Bias in Coreference Resolution: Evaluation and Debiasing Methods", 2018,
        _acl("NAACL-HLT", 2018), "1804.06876",
    ),
    "lin2004": Work(
        "inproceedings", "Lin, Chin-Yew", "ROUGE: A Package for Automatic Evaluation of Summaries", 2004,
        "Text Summarization Branches Out (2004)",
    ),
    "grusky2018": Work(
        "inproceedings", "Grusky, Max and Naaman, Mor and Artzi, Yoav", "Newsroom: A Dataset of 1.3 Million "
        "Summaries with Diverse Extractive Strategies", 2018, _acl("NAACL-HLT", 2018), "1804.11283",
    ),
}
# fmt: on
