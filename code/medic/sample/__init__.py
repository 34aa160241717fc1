"""The drawn samples, by the name of their data set (``medic.data.readers.DATA_SETS``)."""

from medic.sample import chest_set, fundus_set, lesion_set

SAMPLES = {"retinopathy": fundus_set.SAMPLE, "chest_xray": chest_set.SAMPLE, "skin_lesion": lesion_set.SAMPLE}
