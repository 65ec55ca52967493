"""Small classes of English words that the rules look at; our own lists, checked on real text (tests/rewriting)."""

from __future__ import annotations


def word_set(text: str) -> frozenset[str]:
    """Return the words of a text as a set."""
    return frozenset(text.split())


DETERMINERS = word_set(
    "a an the this that these those my your his her its our their some any no every each another one two three "
    "four five six seven ten both which what whose such many several few all other"
)
PREPOSITIONS = word_set(
    "of in to for with on at from by about as into like through after over between out against during without "
    "before under around among off near behind beside besides beyond despite down except inside outside past since "
    "than toward towards until till upon via within across along onto per up above below regarding concerning"
)
PRONOUNS = word_set(
    "i you he she it we they me him us them myself yourself himself herself itself ourselves themselves mine yours "
    "hers ours theirs someone anyone everyone nobody somebody anybody everybody something anything everything "
    "nothing u ya who whom im ive id ill youre youve hes shes theyre weve thats whats theres"
)
AUXILIARIES = word_set(
    "is was are were am be been being has had have having do does did doing done will would can could should shall "
    "may might must isnt wasnt arent werent hasnt hadnt havent dont doesnt didnt wont wouldnt cant couldnt shouldnt "
    "cannot ain't aint isn wasn don doesn didn won wouldn can't couldn shouldn hasn hadn haven"
)
CONJUNCTIONS = word_set(
    "and but or nor so because cause cuz cos coz if when while although though whereas unless that whether as yet "
    "where why how who which whenever wherever whatever everytime eventhough becasue therefore thus plus amp nd n ad w "
    "wd bout abt til thru tho becuz bc coz although though whether if"
)
# Adverbs that end a phrase and hardly ever begin one after "his".
ADVERBS = word_set(
    "again too back now then here there today tonight tomorrow yesterday anymore anyway always never ever often "
    "sometimes still just even also already not away together alone soon later once twice well better instead "
    "forever less maybe perhaps almost exactly actually really especially however otherwise right apart further "
    "regardless afterwards everyday daily earlier sooner longer somehow somewhere anywhere everywhere either neither "
    "else anyways far rather quite lots alot etc enough yes ok okay lol haha please sorry thankfully hopefully"
)
# Those of them that do begin a noun phrase now and then ("her once happy home", "her right hand").
OPEN_ADVERBS = word_set(
    "ever once always still already never right almost far rather quite back well better daily everyday"
)
NUMBERS = word_set(
    "one two three four five six seven eight nine ten eleven twelve twenty first second third last"
)
FUNCTION = (DETERMINERS | PREPOSITIONS | PRONOUNS | AUXILIARIES | CONJUNCTIONS | ADVERBS) - {
    "one",
    "two",
    "three",
}

# Verb forms that are not nouns: after "her" they are what she does.
BARE_VERBS = word_set(
    "feel know get go come see hear think understand believe become begin eat write read speak say tell take give "
    "bring keep let make find lose leave forget remember learn realize decide choose happen seem remain stay sit "
    "stand wait live die be do have want grow fall lie die suffer suck improve perform relax describe continue "
    "interact excel navigate distract raise sleep hold pull add ask behave breathe choose deal enjoy explain follow "
    "forgive explore laugh listen marry meet move pay play put reach receive recover refuse respond return ride run "
    "sell send serve settle share sing solve spend teach treat trust try turn wake walk watch wear win work worry "
    "bloom blossom heal shine thrive fit blush cry cringe melt squirm scream smile giggle sob weep"
)
# Forms that are nouns as often as verbs: they tell nothing without the verb before "her".
VERBS_OR_NOUNS = word_set(
    "sleep walk work play smile laugh cry hold run ride share turn move return try watch pay win lie fall stand wait "
    "suffer treat trust deal worry respect hurt love hope dream talk look dance kiss hug touch fight drink drive help "
    "need plan rest show stay start stop study support visit voice call change cook bath feed leave dress shower nap "
    "blush scream giggle raise kick use grip face head hand eye heart place bloom melt read swim travel vote answer "
    "bite slap poke"
)
FINITE_VERBS = word_set(
    "makes made gives gave says said takes took gets got goes went comes came keeps kept feels felt seems seemed "
    "found wants wanted knows knew thinks thought looked told tells sees saw began became becomes caused happens "
    "happened means meant brings brought left leaves shared loved rushes crushes said"
)
# Third persons that are plural nouns as well.
FINITE_OR_NOUNS = word_set(
    "works looks needs shows helps causes hurts walks talks changes hopes dreams plans"
)
CAUSE = word_set("make makes made making let lets letting help helps helped helping have had having")
PERCEIVE = word_set(
    "see sees saw seen seeing watch watches watched watching hear hears heard hearing feel feels felt feeling notice "
    "noticed find finds found finding catch catches caught catching picture imagine imagining remember spot spotted "
    "leave leaves left leaving keep keeps kept keeping have had having get gets got getting stop stopped want wanted "
    "wants start started send sent love loves loved like likes liked hate hates hated"
)
LEAVE = word_set(
    "make makes made making keep keeps kept keeping leave leaves left leaving find finds found finding get gets got "
    "getting consider considered considering call called calling think thinks thought drive drives drove driving see "
    "want wants wanted render rendered feel feels felt let lets set declare found turn turned wish hold held "
    "take took love like loved liked treat treats treated treating"
)
GIVE = word_set(
    "give gives gave given giving tell tells told telling show shows showed showing shown send sends sent sending "
    "ask asks asked asking call calls called calling rename renamed name named naming teach teaches taught wish wished "
    "wishes wishing buy buys bought buying bring brings brought bringing offer offered hand handed pay paid owe owed"
)
NAME = word_set("call calls called calling rename renamed name named naming consider considered considering")
# What "make her ..." makes when it is something of hers.
MADE_OF_HERS = word_set(
    "way debut appearance name mark decision decisions choice choices mind career bed dinner lunch breakfast point "
    "case money fortune film films movie movies presence voice skin head eyes hair words music wishes dreams day days "
    "week night life world work own mother family friends feelings first return entrance escape move film-making"
)
TIMES = word_set(
    "day days night nights morning mornings evening week weeks month months year years time times minute minutes hour "
    "hours second seconds weekend summer winter spring fall moment single sunday monday tuesday wednesday thursday "
    "friday saturday"
)
SIDES = word_set("arm hand leg eye side foot shoulder mind knee ear wrist ankle hip thigh cheek breast")
BACK_VERBS = word_set(
    "want wanted wants get got getting bring brought bringing take took taking taken love loved loving have had call "
    "called calling text texted win winning won need give gave let welcome send sent put push pushed hold held pay "
    "paid hit tell told follow kiss kissed hate miss like trust invite"
)
STATES = word_set(
    "happy sad mad angry upset sorry scared afraid alone safe crazy proud jealous nervous anxious lonely worse better "
    "comfortable uncomfortable miserable guilty sick ill well alive awake asleep busy ready stressed depressed "
    "embarrassed excited annoyed irritated furious relieved terrified disappointed devastated hilarious amusing funny "
    "attractive beautiful ugly cute sexy adorable pretty hot horny weak strong fat thin skinny calm quiet honest "
    "interested interesting content amazed speechless breathless warm cold wet clean good bad awful terrible great "
    "special unique welcome unwelcome accepted needed useless worthless helpless hopeless restless blank dead pregnant "
    "responsible vulnerable dangerous different difficult easy hard impossible boring rude selfish nice sweet kind "
    "smart intelligent stupid dumb innocent accountable aware unaware unhappy unhappier happier sadder angrier calmer "
    "stronger weaker closer sooner heartbroken broken shocked surprised confused frightened tired exhausted drunk "
    "sober insane uneasy grumpy cranky bored loved unloved appreciated wanted unwanted valued charming entertaining "
    "irritating annoying naked dirty filthy homeless penniless motivated entertained supported satisfied hungry full"
)
POSSESSED = word_set(
    "mother father mom dad mum mommy daddy sister brother son daughter husband wife parents family friends friend "
    "kids children child baby boyfriend girlfriend aunt uncle cousin grandmother grandfather grandma grandpa niece "
    "nephew boss teacher doctor dog cat name age hair eyes face voice house room car mind heart body feelings soul "
    "life phone job shoes clothes dress bed hand hands head arms arm leg legs lips mouth skin tears stepmother "
    "stepfather classmates colleagues coworkers neighbor neighbors"
)
ING_NOUNS = word_set(
    "feelings wedding evening morning meaning being ring wing king clothing building writing painting drawing blog "
    "upbringing thinking understanding hearing breathing belongings earrings sibling siblings offspring ceiling things "
    "thing spring string darling wellbeing reasoning teachings acting cooking singing parenting training drinking "
    "timing boxing breeding bidding findings savings surroundings stuffing engagement everything casing"
)
ING_ADJECTIVES = word_set(
    "loving amazing caring charming darling stunning missing remaining existing growing dying aging ageing living "
    "outstanding overwhelming sparkling shining doting adoring surviving working following leading opening closing "
    "supporting starring winning"
)
NOT_ADVERBS_LY = word_set(
    "family only lovely elderly early belly jelly ugly lonely friendly silly curly holy bully daily weekly "
    "monthly hourly disorderly orderly "
    "yearly lively deadly costly jolly smelly sly fly reply july ally lily emily sally molly kelly billy holly polly "
    "heavenly lowly manly womanly motherly fatherly sisterly brotherly worldly earthly bodily cuddly wobbly bubbly "
    "assembly anomaly italy monopoly tummily"
)
PERSON_NOUNS = word_set(
    "man men woman women boy boys girl girls guy guys gal gals lady ladies gentleman gentlemen dude dudes chick chicks "
    "kid kids child children baby babies toddler toddlers teen teens teenager teenagers youth youths adult adults "
    "person people persons folk folks male males female females friend friends neighbor neighbors neighbour neighbours "
    "family families mother mothers father fathers mom moms dad dads mum mums parent parents sister sisters brother "
    "brothers son sons daughter daughters wife wives husband husbands grandmother grandfather grandma grandpa "
    "grandparents cousin cousins uncle uncles aunt aunts boyfriend girlfriend boyfriends girlfriends couple couples "
    "student students teacher teachers professor professors doctor doctors nurse nurses lawyer lawyers officer "
    "officers cop cops policeman policemen driver drivers worker workers employee employees boss actor actors actress "
    "actresses singer singers musician musicians rapper rappers artist artists writer writers author authors poet "
    "poets player players athlete athletes coach president politician politicians senator candidate candidates voter "
    "voters citizen citizens soldier soldiers veteran veterans farmer farmers farmhand slave slaves servant servants "
    "maid waiter waitress customer customers client clients patient patients tenant tenants christian christians "
    "muslim muslims preacher preachers pastor minister community communities population populations crowd audience "
    "queers european europeans american americans african africans british brit brits briton britons canadian "
    "canadians southerner southerners "
    "immigrant immigrants victim victims suspect suspects thief criminal criminals prisoner prisoners inmate inmates "
    "gangster leader leaders activist activists feminist feminists hero heroes comedian comedians dancer dancers model "
    "models character characters stranger strangers roommate classmate classmates colleague colleagues coworker "
    "bloke blokes lad lads lass chap chaps fella fellas bachelor bride groom king queen prince princess jesus santa "
    "supremacy"
) - {"supremacy"}  # fmt: skip
PERSON_ADJECTIVES = word_set(
    "young old older younger elderly teenage adult middle-aged aged middle class working working-class middle-class "
    "single married gay straight lesbian transgender trans poor rich wealthy educated american british african male "
    "female pregnant homeless urban rural southern little beautiful handsome pretty tall short fat skinny upper lower "
    "college high school professional famous successful strong angry english suburban christian muslim jewish "
    "unarmed innocent fellow and or & hispanic latino asian white black brown red blue football basketball police"
)
HUMAN_SUBJECTS = word_set(
    "i he she we they you who people everyone guy man woman girl boy men women kids parents"
) | word_set(
    "mother father mom dad friend friends husband wife boyfriend girlfriend neighbor neighbors boss teacher family"
)
BE = word_set("am is are was were be being been im hes shes theyre youre were isnt wasnt arent werent")
DEGREE = word_set(
    "very so not really too also all both half mostly either neither just only pretty quite totally"
)
# First names that are family names too: right after a first name they are the family name.
FAMILY_NAMES = word_set(
    "adam allen andrew anthony arthur charles cole craig curtis daniel david dean douglas edward elliot felix floyd "
    "franklin george gilbert gordon graham gregory harvey henry herbert herman howard isaac jack jacob james jesse "
    "joseph keith lamar lawrence leon leonard lewis lloyd logan louis lucas malcolm marcus martin martina matthew "
    "maurice michael neal neil nicholas norman oliver owen patrick paul peter philip phillip ralph raymond richard "
    "robert roland ross rudolph russell ryan samuel scott seth simon spencer stanley stephen steven stuart thomas "
    "tyler vernon victor vincent walter warren wayne wesley wilbur william ann marie"
)
# First names that no lexicon swaps (of either gender, rare, or other words too): a name right behind one of them is a
# family name. Own list.
FIRST_NAMES = (
    word_set(
        "allan ari ashley audra avril axel barack bertie bertrand carly cerina conan cs davina deb desmond "
        "dianne dorian drake earl emile etta ewan franz garth gideon gwyneth hector idris igor jillian jodie "
        "joelle joey jonah jordan josiah jude katelyn keanu lars lebron lenny lionel luther mack mamie mariah "
        "meryl mickey missy mitt murray neville oscar otis ozzy percy priscilla quincy ramon reese rex ridley "
        "rihanna ringo ronny rory roy rufus salman sanjay shaun shawn silas spencer theodore thom tiger "
        "trayvon tupac usher vlad walt warwick wes winston woody yoko zac"
    )
    - FAMILY_NAMES
)
FAMILY_NAMES_S = word_set(
    "adams alans andrews daniels edwards jacobs jons matthews peters phillips richards roberts simons stephens stevens "
    "williams owens harolds marks harveys jills carols sallys jeans johns abrahams davids jacks joans toms bobs gails "
    "roses kens jens bens dans tims teds peggys rhondas annas"
) - word_set("davids jacks toms bobs dans tims annas bens jills alans")
